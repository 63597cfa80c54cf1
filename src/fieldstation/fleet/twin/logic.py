"""What of a netlist matters for the counted pin, in the order in which it can be computed. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

from fieldstation.fleet.twin.netlist import Carry, FlipFlop, Lut, Netlist, Unsupported

Gate = Lut | Carry


@dataclass(frozen=True, slots=True)
class Cone:
    """The gates in dependency order and the flip-flops that the counted pin depends on; or why it cannot be known."""

    clock: int
    counted: int
    gates: tuple[Gate, ...]
    flip_flops: tuple[FlipFlop, ...]
    unknown: Unsupported | None = None


def cone(netlist: Netlist) -> Cone:
    """Walk back from the counted pin. Logic that it does not depend on cannot spoil the answer and is left out."""
    gate_of: dict[int, Gate] = {carry.output: carry for carry in netlist.carries}
    gate_of |= {lut.output: lut for lut in netlist.luts}
    register_of = {register.output: register for register in netlist.flip_flops}
    order: list[Gate] = []
    registers: dict[int, FlipFlop] = {}
    roots = [netlist.counted]
    state: dict[int, int] = {0: 2, 1: 2, netlist.clock: 2}  # 1: being visited, 2: done
    problem = next((u for u in netlist.unsupported if u.reason == "floating_pin"), None)
    while roots and problem is None:
        problem = _visit(roots.pop(), gate_of, register_of, order, registers, roots, state, netlist)
    return Cone(netlist.clock, netlist.counted, tuple(order), tuple(registers.values()), problem)


def _visit(
    root: int,
    gate_of: dict[int, Gate],
    register_of: dict[int, FlipFlop],
    order: list[Gate],
    registers: dict[int, FlipFlop],
    roots: list[int],
    state: dict[int, int],
    netlist: Netlist,
) -> Unsupported | None:
    """Depth first, without recursion: a carry chain of a large design is deeper than Python's stack."""
    stack = [root]
    while stack:
        net = stack[-1]
        if state.get(net) == 2:
            stack.pop()
        elif net in register_of:
            register = registers[net] = register_of[net]
            state[net] = 2
            roots += [register.clock, register.enable, register.reset, register.data]
        elif net not in gate_of:
            return _undriven(net, netlist)
        else:
            waiting = [n for n in _needed(gate_of[net]) if state.get(n) != 2]
            if not waiting:
                order.append(gate_of[net])
                state[net] = 2
            elif state.get(net) == 1 and any(state.get(n) == 1 for n in waiting):
                return Unsupported("combinational_loop", f"logic at tile {gate_of[net].place} feeds back on itself")
            else:
                state[net] = 1
                stack += waiting
    return None


def _needed(gate: Gate) -> tuple[int, ...]:
    """Return the inputs on which the gate's output really depends."""
    if isinstance(gate, Carry):
        return gate.inputs
    return tuple(gate.inputs[i] for i in range(4) if depends(gate.init, i))


def depends(init: int, index: int) -> bool:
    """Say whether a look-up table's answer changes with input `index`."""
    return any((init >> n & 1) != (init >> (n ^ 1 << index) & 1) for n in range(16))


def _undriven(net: int, netlist: Netlist) -> Unsupported:
    for reason in netlist.unsupported:
        if reason.reason in ("block_ram", "pll", "hard_block", "ddr_pin", "tristate_pin"):
            return reason
    return Unsupported("undriven_net", f"the counted pin depends on a signal that nothing drives (net {net})")
