"""Write a cone of logic as a C program that counts the rising edges of its pin. Pure functions.

The program keeps the whole state (all flip-flops, and the last level of every clock and of the pin) in one array and
looks for its recurrence with Brent's algorithm (BIT 20, 1980, 176-184): once the state recurs, every later period is
the same, so the count for the full window is exact without simulating it to the end.
"""

from __future__ import annotations

from fieldstation.fleet.twin.logic import Cone, Gate, depends
from fieldstation.fleet.twin.netlist import Carry, FlipFlop

_FRAME = """\
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef unsigned char bit;
enum {{ REGISTERS = {registers}, STATE = {state} }};
static bit s[STATE + 1];          /* registers, then the last level of each clock, then of the pin */
static bit pin;
static unsigned long long edges;

{step}
/* argv: cycles to count; or: cycles to settle, cycles between samples, samples, RC constant in cycles */
int main(int argc, char **argv)
{{
    unsigned long long cycles = strtoull(argv[1], 0, 10), t;
    rest();
    if (argc > 4) {{
        unsigned long long every = strtoull(argv[2], 0, 10), samples = strtoull(argv[3], 0, 10), n;
        double keep = 1.0 - 1.0 / strtod(argv[4], 0), v = 0.0;
        for (t = 0; t < cycles; t++) {{ if (step()) return 3; v = pin + (v - pin) * keep; }}
        for (n = 0; n < samples; n++) {{
            for (t = 0; t < every; t++) {{ if (step()) return 3; v = pin + (v - pin) * keep; }}
            printf("%d ", (int)(v * 4095.0 + 0.5));
        }}
        return 0;
    }}
    bit mark[STATE + 1];
    unsigned long long mark_t = 0, mark_edges = 0, power = 1;
    memcpy(mark, s, sizeof s);
    for (t = 0; t < cycles;) {{
        if (step()) return 3;
        t++;
        if (memcmp(mark, s, sizeof s) == 0) {{
            unsigned long long period = t - mark_t, left = cycles - t;
            edges += left / period * (edges - mark_edges);
            for (left %= period; left; left--) if (step()) return 3;
            printf("%llu %llu\\n", edges, period);
            return 0;
        }}
        if (t - mark_t == power) {{ power *= 2; mark_t = t; mark_edges = edges; memcpy(mark, s, sizeof s); }}
    }}
    printf("%llu 0\\n", edges);
    return 0;
}}
"""


def program(cone: Cone) -> str:
    """Return the C source for a cone whose pin can be known."""
    registers = cone.flip_flops
    clocks = sorted({register.clock for register in registers} - {cone.clock})
    simple = not clocks and not any(r.negative_edge or r.reset_async for r in registers)
    simple = simple and all(cone.clock not in gate.inputs for gate in cone.gates) and cone.counted != cone.clock
    step = _simple_step(cone) if simple else _general_step(cone, clocks)
    state = len(registers) + (0 if simple else len(clocks)) + 1
    return _FRAME.format(registers=len(registers), state=state, step=step)


def _settle(cone: Cone, clock: str) -> list[str]:
    """Return C statements that compute every net from the registers and the clock's level."""
    index = {register.output: n for n, register in enumerate(cone.flip_flops)}
    lines = [f"    bit n{net} = s[{n}];" for net, n in index.items()]
    lines.append(f"    bit n{cone.clock} = {clock};")
    lines += [f"    bit n{gate.output} = {_expression(gate)};" for gate in cone.gates]
    return lines


def _rest(cone: Cone, clocks: dict[int, int], pin: int) -> list[str]:
    """Return the C function that takes the levels after power-on as they are: they are no edges."""
    lines = ["static void rest(void)", "{", *_settle(cone, "0")]
    lines += [f"    s[{place}] = {_name(net)};" for net, place in clocks.items()]
    return [*lines, f"    s[{pin}] = {_name(cone.counted)};", "}"]


def _count(cone: Cone, state: int) -> list[str]:
    return [f"    pin = {_name(cone.counted)};", f"    edges += pin & (s[{state}] ^ 1);", f"    s[{state}] = pin;"]


def _simple_step(cone: Cone) -> str:
    """One clock drives everything on its rising edge: one pass over the logic per cycle."""
    first = len(cone.flip_flops)
    lines = [*_rest(cone, {}, first), "static inline int step(void)", "{", *_settle(cone, "0")]
    lines += [f"    bit d{n} = {_next(register)};" for n, register in enumerate(cone.flip_flops)]
    lines += [f"    s[{n}] = d{n};" for n in range(len(cone.flip_flops))]
    lines += [*_count(cone, first), "    return 0;", "}"]
    return "\n".join(lines)


def _general_step(cone: Cone, clocks: list[int]) -> str:
    """Gated, derived or falling clocks: settle, let every register see its edges, and again until nothing moves."""
    first = len(cone.flip_flops)
    place = {net: first + n for n, net in enumerate(clocks)}
    pin = first + len(clocks)
    lines = [*_rest(cone, place, pin), "static int pass(bit clock, bit rose, bit fell)", "{", *_settle(cone, "clock")]
    lines.append("    bit moved = 0;")
    for n, register in enumerate(cone.flip_flops):
        if register.clock in (0, 1):
            continue
        if register.clock == cone.clock:
            edge = "fell" if register.negative_edge else "rose"
        else:
            now, last = f"n{register.clock}", f"s[{place[register.clock]}]"
            edge = f"({last} & ({now} ^ 1))" if register.negative_edge else f"({now} & ({last} ^ 1))"
        lines.append(f"    bit d{n} = {edge} ? {_next(register)} : s[{n}];")
        if register.reset_async:
            lines.append(f"    if ({_name(register.reset)}) d{n} = {register.reset_value};")
        lines.append(f"    moved |= d{n} ^ s[{n}];")
    kept = [n for n, register in enumerate(cone.flip_flops) if register.clock not in (0, 1)]
    lines += [f"    s[{n}] = d{n};" for n in kept]
    for net in clocks:
        lines.append(f"    moved |= s[{place[net]}] ^ {_name(net)}; s[{place[net]}] = {_name(net)};")
    lines += [*_count(cone, pin), "    return moved;", "}"]
    lines += [
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
    return "\n".join(lines)


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
