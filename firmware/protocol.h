/* What the firmwares say on their serial line, apart from any hardware: bytes in, text out.
 *
 * The board is a table of functions, so that the same code runs on a board and in a test on a computer. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define BITSTREAM_BYTES 104090u
#define WATCHDOG_US 2000000u
#define SAMPLES 500u

/* How long each step of writing a bitstream to the FPGA took; -1 for one that failed. */
struct load_times {
    int64_t init_us, start_us, open_us, write_us, close_us;
};

/* Exactly one of count_pulses and sample is set: it makes the difference between the two firmwares. */
struct board {
    uint64_t (*now_us)(void);
    void (*say)(const char *text);
    struct load_times (*load)(const uint8_t *bitstream, uint32_t size);
    uint32_t (*count_pulses)(void);                       /* over one second */
    void (*sample)(uint16_t *samples, uint32_t count);    /* 12 bits each, 100 us apart */
};

struct protocol {
    const struct board *board;
    bool connected;
    uint32_t received;
    uint64_t began_us;
    uint8_t bitstream[BITSTREAM_BYTES];
};

void protocol_start(struct protocol *self, const struct board *board);

/* Call it again and again. `connected` says whether a host listens; `bytes` is what has come since the last call.
 * A whole bitstream is written to the FPGA and measured in here; what is too much belongs to the next one. */
void protocol_step(struct protocol *self, bool connected, const uint8_t *bytes, uint32_t count);
