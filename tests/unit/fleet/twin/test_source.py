"""Hand-made netlists, compiled and run: what the generated program counts is what the logic does."""

import subprocess
from pathlib import Path

import pytest

from fieldstation.fleet.twin.logic import Cone, cone, depends
from fieldstation.fleet.twin.netlist import Carry, FlipFlop, Lut, Netlist, Port, Ram, Unsupported
from fieldstation.fleet.twin.source import program

CLOCK = 2
INVERT, XOR, AND = 0x5555, 0x6666, 0x8888


def register(data: int, output: int, **changes: object) -> FlipFlop:
    fields: dict[str, object] = {
        "clock": CLOCK,
        "negative_edge": False,
        "enable": 1,
        "reset": 0,
        "reset_async": False,
        "reset_value": 0,
        "data": data,
        "output": output,
        "place": (1, 1, output),
    }
    return FlipFlop(**{**fields, **changes})


def lut(init: int, output: int, *inputs: int) -> Lut:
    padded = (*inputs, 0, 0, 0, 0)[:4]
    return Lut(padded, output, init, (1, 1, output))


def netlist(counted: int, *cells: Lut | Carry | FlipFlop | Ram, unsupported: tuple[Unsupported, ...] = ()) -> Netlist:
    made = Netlist("5k", 100, CLOCK, counted, unsupported=list(unsupported))
    for cell in cells:
        {Lut: made.luts, Carry: made.carries, FlipFlop: made.flip_flops, Ram: made.rams}[type(cell)].append(cell)
    return made


def count(design: Netlist, cycles: int, folder: Path) -> tuple[int, int]:
    known = cone(design)
    assert known.unknown is None
    (folder / "d.c").write_text(program(known))
    subprocess.run(["gcc", "-Wall", "-Werror", "-Wno-unused", "-o", folder / "d", folder / "d.c"], check=True)
    done = subprocess.run([folder / "d", str(cycles)], capture_output=True, text=True, check=True)
    edges, period = map(int, done.stdout.split())
    return edges, period


def divider(bits: int) -> list[Lut | FlipFlop]:
    """A ripple-free binary counter whose bit n is net 10+n, built of XOR and AND."""
    cells: list[Lut | FlipFlop] = [register(30, 10), lut(INVERT, 30, 10)]
    carry = 10
    for n in range(1, bits):
        cells += [lut(XOR, 30 + n, 10 + n, carry), register(30 + n, 10 + n), lut(AND, 50 + n, 10 + n, carry)]
        carry = 50 + n
    return cells


@pytest.mark.parametrize("cycles", [1, 7, 8, 9, 1000, 48_000_000])
def test_counter_divides_exactly_whatever_the_window(tmp_path: Path, cycles: int) -> None:
    edges, _ = count(netlist(12, *divider(3)), cycles, tmp_path)
    assert edges == (cycles + 4) // 8


def test_period_is_found_and_named(tmp_path: Path) -> None:
    assert count(netlist(14, *divider(5)), 1_000_000, tmp_path) == (31250, 32)


def test_register_takes_nothing_while_disabled_or_reset(tmp_path: Path) -> None:
    enabled = [*divider(2), register(40, 20, enable=11), lut(INVERT, 40, 20)]
    assert count(netlist(20, *enabled), 4000, tmp_path)[0] == 1000
    held = [register(40, 20, reset=1), lut(INVERT, 40, 20)]
    assert count(netlist(20, *held), 4000, tmp_path)[0] == 0


def test_reset_without_clock_edge_acts_at_once(tmp_path: Path) -> None:
    cells = [*divider(3), register(1, 20, reset=12, reset_async=True)]
    assert count(netlist(20, *cells), 8000, tmp_path)[0] == 1000  # up at cycles 1, 9, 17, ... 7993


def test_derived_clock_ripples_within_one_cycle(tmp_path: Path) -> None:
    cells = [
        *divider(1),
        register(40, 20, clock=10),
        lut(INVERT, 40, 20),
        register(41, 21, clock=20, negative_edge=True),
    ]
    assert count(netlist(21, *cells, lut(INVERT, 41, 21)), 8000, tmp_path)[0] == 1000


def test_level_after_power_on_is_no_edge(tmp_path: Path) -> None:
    cells = [lut(INVERT, 41, 10), *divider(1)]
    assert count(netlist(41, *cells), 2, tmp_path)[0] == 1


def test_majority_is_a_carry(tmp_path: Path) -> None:
    cells = [*divider(2), Carry((10, 11, 0), 60, (1, 1, 0))]
    assert count(netlist(60, *cells), 4000, tmp_path)[0] == 1000


@pytest.mark.parametrize(("mode", "width_bit"), [(0, 0), (1, 0), (2, 1), (3, 3)])
def test_ram_reads_its_initial_content_in_each_width(tmp_path: Path, mode: int, width_bit: int) -> None:
    outputs = tuple(range(70, 86))
    init = (0, 0xFFFF) * 128  # every odd word is all ones
    read = Port(CLOCK, False, (1, 1), (10, *([0] * 10)), mode)
    write = Port(0, False, (0, 1), (0,) * 11, mode)
    ram = Ram(read, write, (0,) * 16, (0,) * 16, outputs, init, (6, 1))
    assert count(netlist(outputs[width_bit], *divider(1), ram), 4000, tmp_path)[0] == 2000


def test_ram_returns_what_was_written_one_cycle_before(tmp_path: Path) -> None:
    outputs = tuple(range(70, 86))
    address = (0,) * 11
    read, write = Port(CLOCK, False, (1, 1), address, 0), Port(CLOCK, False, (1, 1), address, 0)
    ram = Ram(read, write, (0,) * 16, (11, *([0] * 15)), outputs, (0,) * 256, (6, 1))
    assert (
        count(netlist(70, *divider(2), ram), 4000, tmp_path)[0] == 1000
    )  # two cycles behind the counter: up at 4, 8, ... 4000


def test_logic_that_feeds_back_on_itself_is_refused() -> None:
    known = cone(netlist(30, lut(INVERT, 30, 30)))
    assert known.unknown is not None
    assert known.unknown.reason == "combinational_loop"


def test_longer_loop_is_found_too() -> None:
    known = cone(netlist(30, lut(INVERT, 30, 31), lut(INVERT, 31, 32), lut(INVERT, 32, 30)))
    assert known.unknown is not None
    assert known.unknown.reason == "combinational_loop"


def test_loop_that_the_pin_does_not_depend_on_spoils_nothing(tmp_path: Path) -> None:
    cells = [*divider(1), lut(INVERT, 90, 90)]
    assert count(netlist(10, *cells), 100, tmp_path)[0] == 50


def test_input_that_changes_nothing_is_no_dependency(tmp_path: Path) -> None:
    cells = [*divider(1), lut(0xAAAA, 40, 10, 40)]  # passes in0; in1 is wired to the output but ignored
    assert count(netlist(40, *cells), 100, tmp_path)[0] == 50


def test_signal_that_nothing_drives_is_named() -> None:
    known = cone(netlist(30, lut(INVERT, 30, 99)))
    assert known.unknown is not None
    assert known.unknown.reason == "undriven_net"


def test_hard_block_behind_the_pin_is_the_reason() -> None:
    known = cone(netlist(99, unsupported=(Unsupported("pll", "used"),)))
    assert known.unknown == Unsupported("pll", "used")


def test_carry_chain_deeper_than_pythons_stack_is_walked() -> None:
    chain = [Carry((1, 10, 100 + n), 101 + n, (1, 1, 0)) for n in range(5000)]
    known: Cone = cone(netlist(5100, *divider(1), Carry((1, 10, 0), 100, (1, 1, 0)), *chain))
    assert known.unknown is None
    assert len(known.gates) >= 5000


@pytest.mark.parametrize(("init", "index", "answer"), [(0xAAAA, 0, True), (0xAAAA, 1, False), (0xFF00, 3, True)])
def test_dependence_on_an_input_is_read_from_the_table(init: int, index: int, answer: bool) -> None:
    assert depends(init, index) is answer
