/* Kind `pulsecount`: rising edges on GPIO 20 in one second, counted by a PIO state machine so that none is missed. */
#include "board.h"

#include "edges.pio.h"
#include "hardware/gpio.h"
#include "hardware/pio.h"
#include "pico/stdlib.h"

#define PULSE_GPIO 20u
#define WINDOW_US 1000000u

static uint offset;

static uint32_t count_pulses(void)
{
    edges_start(pio0, 0, offset, PULSE_GPIO);
    sleep_us(WINDOW_US);
    return edges_stop(pio0, 0);
}

int main(void)
{
    static const struct board board = {
        .now_us = board_now_us, .say = board_say, .load = board_load, .count_pulses = count_pulses};

    board_init();
    gpio_init(PULSE_GPIO);
    gpio_set_dir(PULSE_GPIO, GPIO_IN);
    offset = pio_add_program(pio0, &edges_program);
    board_serve(&board);
}
