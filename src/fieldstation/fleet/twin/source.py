"""Write a cone of logic as a C program that counts the rising edges of its pin. Pure functions.

The program keeps the whole state (flip-flops, RAMs, the last level of every clock and of the pin) in one structure and
looks for its recurrence with Brent's algorithm (BIT 20, 1980, 176-184): once the state recurs, every later period is
the same, so the count for the full window is exact without simulating it to the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

from fieldstation.fleet.twin.logic import Cone, Gate, depends
from fieldstation.fleet.twin.netlist import Carry, FlipFlop, Port


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where each thing has its place in the program's array `s`."""

    outputs: dict[int, int]  # nets that flip-flops and RAMs drive
    clocks: dict[int, int]  # nets that clock something, besides the outside clock
    pin: int


def program(cone: Cone) -> str:
    """Return the C source for a cone whose pin can be known."""
    clocked: list[FlipFlop | Port] = [*cone.flip_flops]
    clocked += [port for ram in cone.rams for port in (ram.read, ram.write)]
    clocks = sorted({part.clock for part in clocked} - {cone.clock, 0, 1})
    outputs = [register.output for register in cone.flip_flops] + [net for ram in cone.rams for net in ram.outputs]
    simple = not clocks and not any(part.negative_edge for part in clocked)
    simple = simple and not any(register.reset_async for register in cone.flip_flops)
    simple = simple and all(cone.clock not in gate.inputs for gate in cone.gates) and cone.counted != cone.clock
    first_clock = len(outputs)
    layout = _Layout(
        {net: n for n, net in enumerate(outputs)},
        {net: first_clock + n for n, net in enumerate(clocks)},
        first_clock + len(clocks),
    )
    frame = resources.files(__package__).joinpath("frame.c").read_text()
    step = _simple_step(cone, layout) if simple else _general_step(cone, layout)
    rams = ",\n".join("{" + ",".join(map(str, ram.init)) + "}" for ram in cone.rams)
    return (
        frame.replace("@STATE@", str(layout.pin + 1))
        .replace("@RAMS@", str(len(cone.rams)))
        .replace("@INIT@", rams)
        .replace("@STEP@", "\n".join([*_rest(cone, layout), *step]))
    )


def _settle(cone: Cone, layout: _Layout, clock: str) -> list[str]:
    """Return C statements that compute every net from the state and the clock's level."""
    lines = [f"    bit n{net} = s[{place}];" for net, place in layout.outputs.items()]
    lines.append(f"    bit n{cone.clock} = {clock};")
    return lines + [f"    bit n{gate.output} = {_expression(gate)};" for gate in cone.gates]


def _rest(cone: Cone, layout: _Layout) -> list[str]:
    """Return the C functions for the start and the end: levels after power-on are no edges; the last edge counts."""
    lines = ["static void rest(void)", "{", *_settle(cone, layout, "0")]
    lines += [f"    s[{place}] = {_name(net)};" for net, place in layout.clocks.items()]
    lines += [f"    s[{layout.pin}] = {_name(cone.counted)};", "}"]
    return [*lines, "static void last(void)", "{", *_settle(cone, layout, "0"), *_count(cone, layout), "}"]


def _count(cone: Cone, layout: _Layout) -> list[str]:
    name = _name(cone.counted)
    return [f"    pin = {name};", f"    edges += pin & (s[{layout.pin}] ^ 1);", f"    s[{layout.pin}] = pin;"]


def _simple_step(cone: Cone, layout: _Layout) -> list[str]:
    """One clock drives everything on its rising edge: one pass over the logic per cycle."""
    lines = ["static inline int step(void)", "{", *_settle(cone, layout, "0"), *_count(cone, layout)]
    lines += [f"    bit d{n} = {_next(register)};" for n, register in enumerate(cone.flip_flops)]
    for number, ram in enumerate(cone.rams):
        lines.append(f"    if ({_enabled(ram.read)}) {_read(cone, number, layout)}")
        lines.append(f"    if ({_enabled(ram.write)}) {_write(cone, number)}")
    lines += [f"    s[{n}] = d{n};" for n in range(len(cone.flip_flops))]
    return [*lines, "    return 0;", "}"]


def _general_step(cone: Cone, layout: _Layout) -> list[str]:
    """Gated, derived or falling clocks: settle, let everything see its edges, and again until nothing moves."""
    lines = [
        "static int pass(bit clock, bit rose, bit fell)",
        "{",
        *_settle(cone, layout, "clock"),
        "    bit moved = 0;",
    ]
    kept = [n for n, register in enumerate(cone.flip_flops) if register.clock not in (0, 1) or register.reset_async]
    for n in kept:
        register = cone.flip_flops[n]
        lines.append(f"    bit d{n} = {_edge(register, cone, layout)} ? {_next(register)} : s[{n}];")
        if register.reset_async:
            lines.append(f"    if ({_name(register.reset)}) d{n} = {register.reset_value};")
        lines.append(f"    moved |= d{n} ^ s[{n}];")
    for number, ram in enumerate(cone.rams):
        for port, act in ((ram.read, _read(cone, number, layout)), (ram.write, _write(cone, number))):
            condition = f"{_edge(port, cone, layout)} && ({_enabled(port)})"
            lines.append(f"    if ({condition}) {{ moved = 1; {act} }}")
    lines += [f"    s[{n}] = d{n};" for n in kept]
    for net, place in layout.clocks.items():
        lines.append(f"    moved |= s[{place}] ^ {_name(net)}; s[{place}] = {_name(net)};")
    lines += [*_count(cone, layout), "    return moved;", "}"]
    return [
        *lines,
        "static int step(void)",
        "{",
        "    int turns;",
        "    for (int level = 1; level >= 0; level--) {",
        "        int moved = pass(level, level, !level);",
        "        for (turns = 0; moved && turns < 1000; turns++) moved = pass(level, 0, 0);",
        "        if (moved) return 1; /* it never comes to rest */",
        "    }",
        "    return 0;",
        "}",
    ]


def _edge(part: FlipFlop | Port, cone: Cone, layout: _Layout) -> str:
    if part.clock in (0, 1):
        return "0"
    if part.clock == cone.clock:
        return "fell" if part.negative_edge else "rose"
    now, before = _name(part.clock), f"s[{layout.clocks[part.clock]}]"
    return f"({before} & ({now} ^ 1))" if part.negative_edge else f"({now} & ({before} ^ 1))"


def _enabled(port: Port) -> str:
    return " & ".join(map(_name, port.enables)) if port.clock not in (0, 1) else "0"


def _number(nets: tuple[int, ...]) -> str:
    """Return the C expression of the number whose bits, lowest first, are `nets`."""
    parts = [f"{_name(net)} << {n}" for n, net in enumerate(nets) if net != 0]
    return " | ".join(parts) or "0"


def _read(cone: Cone, number: int, layout: _Layout) -> str:
    ram = cone.rams[number]
    start = layout.outputs[ram.outputs[0]]
    return f"ram_read({number}, {ram.read.mode}, {_number(ram.read.address)}, s + {start});"


def _write(cone: Cone, number: int) -> str:
    ram = cone.rams[number]
    address, data, mask = map(_number, (ram.write.address, ram.data, ram.mask))
    return f"ram_write({number}, {ram.write.mode}, {address}, {data}, {mask});"


def _name(net: int) -> str:
    return str(net) if net in (0, 1) else f"n{net}"


def _next(register: FlipFlop) -> str:
    """Return the C expression of the level the register takes at its edge."""
    data = _name(register.data)
    if register.reset != 0 and not register.reset_async:
        data = f"({_name(register.reset)} ? {register.reset_value} : {data})"
    if register.enable == 1:
        return data
    return f"({_name(register.enable)} ? {data} : {_name(register.output)})"


def _expression(gate: Gate) -> str:
    if isinstance(gate, Carry):
        a, b, c = map(_name, gate.inputs)
        return f"({a} & {b}) | (({a} | {b}) & {c})"
    return _table(gate.init, [(i, _name(net)) for i, net in enumerate(gate.inputs) if depends(gate.init, i)])


def _table(init: int, inputs: list[tuple[int, str]]) -> str:
    """Shannon expansion over the inputs that matter; a constant input has been folded by its literal."""
    if not inputs:
        return str(init & 1)
    index, name = inputs[-1]
    low, high = _cofactor(init, index, 0), _cofactor(init, index, 1)
    if name in ("0", "1"):
        return _table(high if name == "1" else low, inputs[:-1])
    zero, one = _table(low, inputs[:-1]), _table(high, inputs[:-1])
    if zero == one:
        return zero
    if low == high ^ 0xFFFF:
        return f"({name} ^ {zero})"
    if zero == "0":
        return name if one == "1" else f"({name} & {one})"
    if one == "0":
        return f"({name} ^ 1)" if zero == "1" else f"(({name} ^ 1) & {zero})"
    if one == "1":
        return f"({name} | {zero})"
    return f"({name} ? {one} : {zero})"


def _cofactor(init: int, index: int, level: int) -> int:
    """Return the table with input `index` held at `level`."""
    return sum((init >> (n & ~(1 << index) | level << index) & 1) << n for n in range(16))
