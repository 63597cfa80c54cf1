"""What of a netlist matters for the counted pin, in the order in which it can be computed. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

from fieldstation.fleet.twin.netlist import Carry, FlipFlop, Lut, Netlist, Ram, Unsupported

Gate = Lut | Carry


@dataclass(frozen=True, slots=True)
class Cone:
    """The gates in dependency order, flip-flops and RAMs that the counted pin depends on; or why it cannot be known."""

    clock: int
    counted: int
    gates: tuple[Gate, ...]
    flip_flops: tuple[FlipFlop, ...]
    rams: tuple[Ram, ...] = ()
    unknown: Unsupported | None = None


def cone(netlist: Netlist) -> Cone:
    """Walk back from the counted pin. Logic that it does not depend on cannot spoil the answer and is left out."""
    gate_of: dict[int, Gate] = {carry.output: carry for carry in netlist.carries}
    gate_of |= {lut.output: lut for lut in netlist.luts}
    walk = _Walk(gate_of, netlist)
    problem = netlist.pin_unknown
    while walk.roots and problem is None:
        problem = walk.visit(walk.roots.pop())
    return Cone(
        netlist.clock,
        netlist.counted,
        tuple(walk.order),
        tuple(walk.registers.values()),
        tuple(walk.rams.values()),
        problem,
    )


class _Walk:
    """Depth first, without recursion: a carry chain of a large design is deeper than Python's stack."""

    def __init__(self, gate_of: dict[int, Gate], netlist: Netlist) -> None:
        self.gate_of, self.netlist = gate_of, netlist
        self.register_of = {register.output: register for register in netlist.flip_flops}
        self.ram_of = {net: ram for ram in netlist.rams for net in ram.outputs}
        self.order: list[Gate] = []
        self.registers: dict[int, FlipFlop] = {}
        self.rams: dict[tuple[int, int], Ram] = {}
        self.roots = [netlist.counted]
        self.done = {0, 1, netlist.clock}
        self.entered: set[int] = set()

    def visit(self, root: int) -> Unsupported | None:
        stack = [root]
        while stack:
            net = stack[-1]
            if net in self.done:
                stack.pop()
            elif self._clocked(net):
                self.done.add(net)
            elif net not in self.gate_of:
                return _undriven(net, self.netlist)
            else:
                gate = self.gate_of[net]
                waiting = [n for n in _needed(gate) if n not in self.done]
                if not waiting:
                    self.order.append(gate)
                    self.done.add(net)
                elif net in self.entered and not self.entered.isdisjoint(waiting):
                    return Unsupported("combinational_loop", f"logic at tile {gate.place} feeds back on itself")
                else:
                    self.entered.add(net)
                    stack += waiting
        return None

    def _clocked(self, net: int) -> bool:
        """Take note of a flip-flop or RAM that drives `net`; what it depends on is walked later, so loops end here."""
        if net in self.register_of:
            register = self.registers[net] = self.register_of[net]
            self.roots += [register.clock, register.enable, register.reset, register.data]
        elif net in self.ram_of:
            ram = self.ram_of[net]
            if ram.place not in self.rams:
                self.rams[ram.place] = ram
                self.done.update(ram.outputs)
                for port in (ram.read, ram.write):
                    self.roots += [port.clock, *port.enables, *port.address]
                self.roots += [*ram.mask, *ram.data]
        else:
            return False
        return True


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
        if reason.reason in ("pll", "hard_block", "ddr_pin", "tristate_pin"):
            return reason
    return Unsupported("undriven_net", f"the counted pin depends on a signal that nothing drives (net {net})")


def feedback(netlist: Netlist) -> list[tuple[int, int, int]]:
    """Return the places (tile column, row, cell) of logic on or between loops without a register, in the whole design.

    What has no looped input, or drives nothing looped, is peeled off until nothing more goes.
    """
    left: set[Gate] = {*netlist.luts, *netlist.carries}
    while True:
        driven = {gate.output for gate in left}
        needed = {net for gate in left for net in _needed(gate)}
        kept = {gate for gate in left if gate.output in needed and not driven.isdisjoint(_needed(gate))}
        if len(kept) == len(left):
            return sorted({gate.place for gate in left})
        left = kept
