#include "protocol.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void wait_for_next(struct protocol *self)
{
    self->received = 0;
    self->board->say("Waiting for bitstream transfer\r\n");
}

static void begin(struct protocol *self)
{
    self->began_us = self->board->now_us();
    self->board->say("Bitstream transfer started\r\n");
    self->board->say("Receiving bitstream\r\n");
}

static void say_pulses(const struct board *board)
{
    char line[32];
    snprintf(line, sizeof line, ", pulses: %" PRIu32 "\r\n", board->count_pulses());
    board->say(line);
}

static void say_samples(const struct board *board)
{
    static uint16_t samples[SAMPLES];
    char text[8];

    board->say("Sampling ADC\r\n");
    board->sample(samples, SAMPLES);
    board->say("samples: ");
    for (uint32_t n = 0; n < SAMPLES; n++) {
        snprintf(text, sizeof text, n == 0 ? "%u" : ",%u", (unsigned)samples[n]);
        board->say(text);
    }
    board->say("\r\n");
}

static void evaluate(struct protocol *self)
{
    const struct board *board = self->board;
    char line[128];

    snprintf(line, sizeof line, "Received bitstream in %" PRIu64 " us :)\r\n", board->now_us() - self->began_us);
    board->say(line);
    board->say("Flashing FPGA\r\n");
    struct load_times took = board->load(self->bitstream, BITSTREAM_BYTES);
    snprintf(line, sizeof line,
             "FPGA Flash times (us): init %" PRId64 ", start %" PRId64 ", open %" PRId64 ", write %" PRId64
             ", close %" PRId64 "\r\n",
             took.init_us, took.start_us, took.open_us, took.write_us, took.close_us);
    board->say(line);
    if (board->count_pulses != NULL)
        say_pulses(board);
    else
        say_samples(board);
    board->say("IDLE\r\n");
    wait_for_next(self);
}

static void give_up(struct protocol *self)
{
    char line[80];

    snprintf(line, sizeof line, "Watchdog timeout, %" PRIu32 " bytes received of %u\r\n", self->received,
             BITSTREAM_BYTES);
    self->board->say(line);
    self->board->say("IDLE\r\n");
    wait_for_next(self);
}

void protocol_start(struct protocol *self, const struct board *board)
{
    memset(self, 0, sizeof *self);
    self->board = board;
}

void protocol_step(struct protocol *self, bool connected, const uint8_t *bytes, uint32_t count)
{
    if (connected && !self->connected) {
        self->connected = true;
        self->board->say("USB Connected :)\r\n");
        wait_for_next(self);
    } else if (!connected) {
        /* Half a bitstream of a host that has gone is nobody's. */
        self->connected = false;
        self->received = 0;
        return;
    }
    while (count > 0) {
        if (self->received == 0)
            begin(self);
        uint32_t missing = BITSTREAM_BYTES - self->received;
        uint32_t taken = count < missing ? count : missing;
        memcpy(self->bitstream + self->received, bytes, taken);
        self->received += taken;
        bytes += taken;
        count -= taken;
        if (self->received == BITSTREAM_BYTES)
            evaluate(self);
    }
    if (self->received > 0 && self->board->now_us() - self->began_us > WATCHDOG_US)
        give_up(self);
}
