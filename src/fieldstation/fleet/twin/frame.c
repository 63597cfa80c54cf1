/* The part of a design's program that is the same for every design; source.py fills in what stands between @. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/prctl.h>

typedef unsigned char bit;
enum { STATE = @STATE@, RAMS = @RAMS@ };

static struct {
    bit s[STATE]; /* flip-flops and RAM outputs, then the last level of each clock, then of the pin */
    unsigned short m[RAMS][256];
} w = { .m = { @INIT@ } };
#define s w.s

static bit pin;
static unsigned long long edges;

/* Narrow modes of a RAM: which bits of the 16 are not addressed (yosys, ice40/cells_sim.v, SB_RAM40_4K). */
static const unsigned short hidden[4][8] = {
    { 0 },
    { 0xAAAA, 0x5555 },
    { 0xEEEE, 0xDDDD, 0xBBBB, 0x7777 },
    { 0xFEFE, 0xFDFD, 0xFBFB, 0xF7F7, 0xEFEF, 0xDFDF, 0xBFBF, 0x7F7F },
};

/* In a narrow mode, group g of `1 << mode` bits is seen at data bit `(g << mode) + low[mode]`. */
static const int low[4] = { 0, 0, 1, 3 };

static inline void ram_read(int ram, int mode, int address, bit *out)
{
    int word = w.m[ram][address & 255] & ~hidden[mode][mode ? address >> 8 & ((1 << mode) - 1) : 0];
    if (mode == 0) {
        for (int n = 0; n < 16; n++) out[n] = word >> n & 1;
        return;
    }
    memset(out, 0, 16);
    for (int g = 0; g < 16; g += 1 << mode) out[g + low[mode]] = (word >> g & ((1 << (1 << mode)) - 1)) != 0;
}

static inline void ram_write(int ram, int mode, int address, int data, int mask)
{
    int word = data;
    if (mode) {
        mask = hidden[mode][address >> 8 & ((1 << mode) - 1)];
        word = 0;
        for (int g = 0; g < 16; g += 1 << mode)
            if (data >> (g + low[mode]) & 1) word |= ((1 << (1 << mode)) - 1) << g;
    }
    unsigned short *cell = &w.m[ram][address & 255];
    *cell = (*cell & mask) | (word & ~mask);
}

@STEP@

/* Arguments: cycles to count. Or: cycles, changes of the pin to print. Or: cycles to settle, cycles between samples,
   samples, RC constant in cycles. */
int main(int argc, char **argv)
{
    unsigned long long cycles = strtoull(argv[1], 0, 10), t;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* who started it is gone: nobody wants the answer */
    rest();
    if (argc == 3) {
        unsigned long long most = strtoull(argv[2], 0, 10);
        for (t = 0; t < cycles && most; t++) {
            bit before = pin;
            if (step()) return 3;
            if (pin != before) {
                printf("%llu ", t);
                most--;
            }
        }
        return 0;
    }
    if (argc > 4) {
        unsigned long long every = strtoull(argv[2], 0, 10), samples = strtoull(argv[3], 0, 10), n;
        double keep = 1.0 - 1.0 / strtod(argv[4], 0), v = 0.0;
        for (t = 0; t < cycles; t++) {
            if (step()) return 3;
            v = pin + (v - pin) * keep;
        }
        for (n = 0; n < samples; n++) {
            for (t = 0; t < every; t++) {
                if (step()) return 3;
                v = pin + (v - pin) * keep;
            }
            printf("%d ", (int)(v * 4095.0 + 0.5));
        }
        return 0;
    }
    static unsigned char mark[sizeof w];
    unsigned long long mark_t = 0, mark_edges = 0, power = 1, period = 0;
    memcpy(mark, &w, sizeof w);
    for (t = 0; t < cycles && !period;) {
        if (step()) return 3;
        t++;
        if (memcmp(mark, &w, sizeof w) == 0) {
            period = t - mark_t;
        } else if (t - mark_t == power) {
            power *= 2;
            mark_t = t;
            mark_edges = edges;
            memcpy(mark, &w, sizeof w);
        }
    }
    if (period) {
        edges += (cycles - t) / period * (edges - mark_edges);
        for (t = (cycles - t) % period; t; t--)
            if (step()) return 3;
    }
    last();
    printf("%llu %llu\n", edges, period);
    return 0;
}
