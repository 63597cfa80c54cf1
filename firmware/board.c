/* pico2-ice: USB serial line through pico-sdk, the FPGA through pico-ice-sdk. */
#include "board.h"

#include <stdio.h>

#include "boards.h"
#include "ice_cram.h"
#include "ice_fpga.h"
#include "pico/stdlib.h"

#define FPGA_CLOCK_MHZ 48

static struct protocol protocol;

void board_init(void)
{
    stdio_init_all();
}

uint64_t board_now_us(void)
{
    return time_us_64();
}

void board_say(const char *text)
{
    /* Not printf: texts hold their own line ends, and nothing in them is a format. */
    while (*text != '\0')
        putchar_raw(*text++);
    stdio_flush();
}

static int64_t since(uint64_t *mark, bool good)
{
    uint64_t now = time_us_64();
    int64_t took = (int64_t)(now - *mark);
    *mark = now;
    return good ? took : -1;
}

struct load_times board_load(const uint8_t *bitstream, uint32_t size)
{
    struct load_times took;
    uint64_t mark = time_us_64();

    took.init_us = since(&mark, ice_fpga_init(FPGA_DATA, FPGA_CLOCK_MHZ) == 0);
    took.start_us = since(&mark, ice_fpga_start(FPGA_DATA) == 0);
    took.open_us = since(&mark, ice_cram_open(FPGA_DATA));
    took.write_us = since(&mark, ice_cram_write(bitstream, size) == 0);
    took.close_us = since(&mark, ice_cram_close());
    return took;
}

void board_serve(const struct board *board)
{
    uint8_t bytes[512];

    protocol_start(&protocol, board);
    for (;;) {
        uint32_t count = 0;
        int next;
        while (count < sizeof bytes && (next = getchar_timeout_us(0)) != PICO_ERROR_TIMEOUT)
            bytes[count++] = (uint8_t)next;
        protocol_step(&protocol, stdio_usb_connected(), bytes, count);
    }
}
