/* What all firmwares need of the hardware. */
#pragma once

#include "protocol.h"

/* Serial line over USB. A host that opens it at 1200 baud restarts the board into its boot loader: pico-sdk does that. */
void board_init(void);

uint64_t board_now_us(void);
void board_say(const char *text);
struct load_times board_load(const uint8_t *bitstream, uint32_t size);

/* Run the protocol for ever. */
void board_serve(const struct board *board);
