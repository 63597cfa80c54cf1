"""The firmwares' protocol, compiled for this computer: the documented lines, and the worker's own code beyond them.

The hardware half is only read by the compiler, against stand-ins for the SDKs' headers: no SDK is at hand.
"""

import ctypes
import os
import re
import subprocess
import threading
import tty
from pathlib import Path
from types import SimpleNamespace

import pytest

from fieldstation.fleet.driver import TTY, Driver, Hotplug, Node, Timing
from fieldstation.fleet.port import Port
from fieldstation.fleet.states import pulsecount, variance
from fieldstation.testing import program, serve

pytestmark = pytest.mark.timeout(60)

FIRMWARE = Path(__file__).parents[3] / "firmware"
BITSTREAM_BYTES = 104_090
WARNINGS = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic"]


class LoadTimes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("init", "start", "open", "write", "close")]


NOW = ctypes.CFUNCTYPE(ctypes.c_uint64)
SAY = ctypes.CFUNCTYPE(None, ctypes.c_char_p)
COUNT = ctypes.CFUNCTYPE(ctypes.c_uint32)
SAMPLE = ctypes.CFUNCTYPE(None, ctypes.POINTER(ctypes.c_uint16), ctypes.c_uint32)


class BoardTable(ctypes.Structure):
    # `load` returns a struct, which ctypes cannot call back for; the shim below fills it in.
    _fields_ = [("now", NOW), ("say", SAY), ("load", ctypes.c_void_p), ("count", COUNT), ("sample", SAMPLE)]


SHIM = """
#include "protocol.h"
#include <stdlib.h>
static uint32_t sum;
static struct load_times load(const uint8_t *bitstream, uint32_t size)
{
    sum = 0;
    for (uint32_t n = 0; n < size; n++)
        sum += bitstream[n];
    return (struct load_times){1, 2, 3, -1, 5};
}
uint32_t loaded_sum(void) { return sum; }
struct protocol *make(struct board *board)
{
    struct protocol *made = malloc(sizeof *made);
    board->load = load;
    protocol_start(made, board);
    return made;
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("firmware")
    (folder / "shim.c").write_text(SHIM)
    built = folder / "protocol.so"
    sources = [folder / "shim.c", FIRMWARE / "protocol.c"]
    command = [program("gcc"), *WARNINGS, "-shared", "-fPIC", f"-I{FIRMWARE}", "-o", built, *sources]
    subprocess.run(command, check=True)
    loaded = ctypes.CDLL(str(built))
    loaded.make.restype = ctypes.c_void_p
    loaded.protocol_step.argtypes = [ctypes.c_void_p, ctypes.c_bool, ctypes.c_char_p, ctypes.c_uint32]
    return loaded


class Board:
    """A board whose clock the test sets; `said` is all its text."""

    def __init__(self, library, *, samples=None):
        self.library = library
        self.said = ""
        self.now = 0
        self.samples = samples
        self.table = BoardTable(NOW(lambda: self.now), SAY(self.say), None, COUNT(), SAMPLE())
        if samples is None:
            self.table.count = COUNT(library.loaded_sum)
        else:
            self.table.sample = SAMPLE(self.sample)
        self.protocol = library.make(ctypes.byref(self.table))

    def say(self, text):
        self.said += text.decode()

    def sample(self, into, count):
        for n in range(count):
            into[n] = self.samples[n % len(self.samples)]

    def step(self, data=b"", *, connected=True, after_us=0):
        self.now += after_us
        before = len(self.said)
        self.library.protocol_step(self.protocol, connected, data, len(data))
        return self.said[before:].split("\r\n")[:-1]


GREETING = ["USB Connected :)", "Waiting for bitstream transfer"]
RECEIVING = ["Bitstream transfer started", "Receiving bitstream"]


def test_a_bitstream_is_answered_with_the_documented_lines(library):
    board = Board(library)
    assert board.step() == GREETING
    assert board.step() == []
    assert board.step(bytes([1]) * 1000) == RECEIVING
    assert board.step(bytes([1]) * (BITSTREAM_BYTES - 1001), after_us=1000) == []
    assert board.step(b"\x07", after_us=500) == [
        "Received bitstream in 1500 us :)",
        "Flashing FPGA",
        "FPGA Flash times (us): init 1, start 2, open 3, write -1, close 5",
        f", pulses: {BITSTREAM_BYTES + 6}",
        "IDLE",
        "Waiting for bitstream transfer",
    ]


def test_samples_are_one_line_that_the_worker_reads_whole(library):
    board = Board(library, samples=[0, 4095, 7])
    lines = board.step(bytes(BITSTREAM_BYTES))
    assert lines[-4] == "Sampling ADC"
    assert lines[-3].startswith("samples: 0,4095,7,0,")
    device = SimpleNamespace(serial="S", driver=SimpleNamespace(timing=Timing()))
    state = variance.VarianceState(device, None, None, True)
    fitness, samples = state.read(lines[-3])
    assert (len(samples), samples[:4]) == (500, [0, 4095, 7, 0])
    assert fitness == variance.fitness(samples)


def test_a_transfer_that_stops_is_given_up_after_two_seconds_and_the_next_one_is_whole(library):
    board = Board(library)
    board.step(bytes(5))
    assert board.step(after_us=2_000_000) == []
    lost = f"Watchdog timeout, 5 bytes received of {BITSTREAM_BYTES}"
    assert board.step(after_us=1) == [lost, "IDLE", "Waiting for bitstream transfer"]
    assert board.step(after_us=10_000_000) == []
    assert ", pulses: 0" in board.step(bytes(BITSTREAM_BYTES))


def test_what_is_too_much_belongs_to_the_next_bitstream(library):
    board = Board(library)
    lines = board.step(bytes([0]) * BITSTREAM_BYTES + bytes([1]) * 10)
    assert lines[-2:] == RECEIVING
    assert ", pulses: 10" in board.step(bytes(BITSTREAM_BYTES - 10))


def test_half_a_bitstream_of_a_host_that_is_gone_is_forgotten(library):
    board = Board(library)
    board.step(bytes([9]) * 50)
    assert board.step(connected=False) == []
    assert board.step(after_us=3_000_000) == GREETING
    assert ", pulses: 0" in board.step(bytes(BITSTREAM_BYTES))


class Wire(Driver):
    """One board on a pseudo-terminal, with its firmware already on it."""

    kinds = (pulsecount.KIND,)
    flashes = False
    timing = Timing(chunk_pause_s=0.0)

    def __init__(self, path):
        self.path = path

    async def events(self):
        yield Hotplug("add", "C", Node(TTY, self.path))

    async def port(self, node):
        return Port.open(node.path)


def test_the_workers_own_code_evaluates_with_it(library):
    master, slave = os.openpty()
    tty.setraw(slave)
    board = Board(library)

    def play():
        while True:
            try:
                data = os.read(master, 65_536)
                os.write(master, "\r\n".join([*board.step(data), ""]).encode())
            except OSError:
                return

    threading.Thread(target=play, daemon=True).start()
    with serve(Wire(os.ttyname(slave))) as bench:
        device = bench.reserve("pulsecount", "C")
        for number in range(1, 4):
            device.send("evaluate", files={str(number): bytes([number]) * BITSTREAM_BYTES}, batch_id="b")
            expected = [[str(number), str(number * BITSTREAM_BYTES)]]
            assert device.event("results")["results"] == expected
    os.close(slave)
    os.close(master)


STAND_INS = {
    "boards.h": "extern const int FPGA_DATA;",
    "ice_fpga.h": "int ice_fpga_init(int fpga, int mhz); int ice_fpga_start(int fpga);",
    "ice_cram.h": "#include <stdbool.h>\n#include <stdint.h>\nbool ice_cram_open(int fpga);"
    " int ice_cram_write(const uint8_t *bitstream, uint32_t size); bool ice_cram_close(void);",
    "pico/stdlib.h": """
#include <stdbool.h>
#include <stdint.h>
typedef unsigned int uint;
typedef uint64_t absolute_time_t;
#define PICO_ERROR_TIMEOUT (-1)
bool stdio_init_all(void); void stdio_flush(void); int putchar_raw(int c); int getchar_timeout_us(uint32_t us);
bool stdio_usb_connected(void);
uint64_t time_us_64(void); void sleep_ms(uint32_t ms); void sleep_us(uint64_t us);
absolute_time_t get_absolute_time(void); void busy_wait_until(absolute_time_t t);
absolute_time_t delayed_by_us(const absolute_time_t t, uint64_t us);
""",
    "hardware/gpio.h": "#include <pico/stdlib.h>\n#define GPIO_IN 0\nvoid gpio_init(uint gpio);"
    " void gpio_set_dir(uint gpio, bool out);",
    "hardware/adc.h": "#include <pico/stdlib.h>\n#define ADC_BASE_PIN 26u\nvoid adc_init(void);"
    " void adc_gpio_init(uint gpio); void adc_select_input(uint input); uint16_t adc_read(void);",
    "hardware/pio.h": """
#include <pico/stdlib.h>
typedef struct pio *PIO;
typedef struct { uint32_t a; } pio_sm_config;
typedef struct { int length; } pio_program_t;
enum pio_src_dest { pio_x, pio_null, pio_isr };
extern PIO pio0;
uint pio_add_program(PIO pio, const pio_program_t *program);
void sm_config_set_in_pins(pio_sm_config *c, uint pin);
void pio_sm_init(PIO pio, uint sm, uint offset, const pio_sm_config *config);
void pio_sm_exec(PIO pio, uint sm, uint instruction);
void pio_sm_set_enabled(PIO pio, uint sm, bool enabled);
uint32_t pio_sm_get_blocking(PIO pio, uint sm);
uint pio_encode_mov_not(enum pio_src_dest to, enum pio_src_dest from);
uint pio_encode_push(bool if_full, bool block);
""",
}


def test_the_hardware_half_is_c_that_fits_the_calls_it_makes(tmp_path):
    for name, text in STAND_INS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"#pragma once\n{text}\n")
    block = re.search(r"% c-sdk \{\n(.*?)%\}", (FIRMWARE / "edges.pio").read_text(), re.DOTALL)
    head = "#pragma once\n#include <hardware/pio.h>\nextern const pio_program_t edges_program;\n"
    head += "pio_sm_config edges_program_get_default_config(uint offset);\n"
    (tmp_path / "edges.pio.h").write_text(head + block[1])
    sources = sorted(FIRMWARE.glob("*.c"))
    assert len(sources) == 5
    for source in sources:
        command = [program("gcc"), *WARNINGS, "-fsyntax-only", f"-I{tmp_path}", f"-I{FIRMWARE}", source]
        subprocess.run(command, check=True)


def test_the_build_script_says_what_is_missing():
    env = {**os.environ, "PATH": "/usr/bin:/bin", "PICO_SDK_PATH": "/nonexistent/pico-sdk"}
    done = subprocess.run([FIRMWARE / "build.sh"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.search(r"is missing[.:] (Debian: apt-get install|set PICO_SDK_PATH)", done.stderr)
