/* What an unreserved board runs: it says that it is there. */
#include "board.h"

#include "pico/stdlib.h"

int main(void)
{
    board_init();
    for (;;) {
        board_say("default firmware\r\n");
        sleep_ms(50);
    }
}
