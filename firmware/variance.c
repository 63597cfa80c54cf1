/* Kind `variance`: 500 readings of ADC channel 1, 100 us apart, 100 ms after the circuit began. */
#include "board.h"

#include "hardware/adc.h"
#include "pico/stdlib.h"

#define CHANNEL 1u
/* GPIO 27 on a chip with ADC pins from 26 on, GPIO 41 on one (RP2350B) where they begin at 40. */
#define ADC_GPIO (ADC_BASE_PIN + CHANNEL)
#define SETTLE_MS 100u
#define EVERY_US 100u

static void sample(uint16_t *samples, uint32_t count)
{
    sleep_ms(SETTLE_MS);
    absolute_time_t due = get_absolute_time();
    for (uint32_t n = 0; n < count; n++) {
        busy_wait_until(due);
        samples[n] = adc_read();
        due = delayed_by_us(due, EVERY_US);
    }
}

int main(void)
{
    static const struct board board = {
        .now_us = board_now_us, .say = board_say, .load = board_load, .sample = sample};

    board_init();
    adc_init();
    adc_gpio_init(ADC_GPIO);
    adc_select_input(CHANNEL);
    board_serve(&board);
}
