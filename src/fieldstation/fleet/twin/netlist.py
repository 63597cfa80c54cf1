"""From an iCE40 bitstream in ASCII to a netlist of look-up tables, carries, flip-flops and block RAMs.

Bit meanings and routing come from Project IceStorm's `icebox` module, which is loaded once and kept: decoding an unseen
bitstream takes about half a second, loading the tables of all tiles a quarter of that.
Source of the cell semantics: Project IceStorm, "LOGIC tile" and "IO tile" documentation.
"""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from fieldstation.core.errors import FieldstationError

ICEBOX_FOLDERS = ("/usr/share/fpga-icestorm/python", "/usr/share/icestorm/python", "/usr/local/share/icebox")

Segment = tuple[int, int, str]


class TwinToolsError(FieldstationError):
    """The digital twin needs {tool}, which is not on this machine. Install it with: apt-get install {package}."""


class Unsupported(NamedTuple):
    """What a digital simulation cannot know: a machine-readable reason and a sentence."""

    reason: str
    detail: str


class Pin(NamedTuple):
    """An IO cell by tile column, tile row and pad in the tile, as IceStorm names them: `io_<x>_<y>_<pad>`."""

    x: int
    y: int
    pad: int

    def __str__(self) -> str:
        return f"io_{self.x}_{self.y}_{self.pad}"


@dataclass(frozen=True, slots=True)
class Lut:
    """Output = bit `in3 in2 in1 in0` (a 4-bit number) of `init`."""

    inputs: tuple[int, int, int, int]
    output: int
    init: int
    place: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Carry:
    """Majority of its three inputs."""

    inputs: tuple[int, int, int]
    output: int
    place: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class FlipFlop:
    """Takes `data` into `output` on the clock's edge while `enable`; `reset` forces `reset_value`."""

    clock: int
    negative_edge: bool
    enable: int
    reset: int
    reset_async: bool
    reset_value: int
    data: int
    output: int
    place: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Port:
    """One side of a block RAM: acts on the clock's edge while both enables are high; `address`: 11 nets, lowest first.

    `mode`: 0 is 256 words of 16 bits, 1 is 512 of 8, 2 is 1024 of 4, 3 is 2048 of 2.
    """

    clock: int
    negative_edge: bool
    enables: tuple[int, int]
    address: tuple[int, ...]
    mode: int


@dataclass(frozen=True, slots=True)
class Ram:
    """A 4 Kbit block RAM (SB_RAM40_4K). `mask` high keeps a bit of a 256 x 16 write; `init`: 256 words of 16 bits."""

    read: Port
    write: Port
    mask: tuple[int, ...]
    data: tuple[int, ...]
    outputs: tuple[int, ...]
    init: tuple[int, ...]
    place: tuple[int, int]


@dataclass(slots=True)
class Netlist:
    """Cells between numbered nets. Net 0 is constant low, net 1 constant high; `clock` is fed from outside."""

    device: str
    nets: int
    clock: int
    counted: int
    luts: list[Lut] = field(default_factory=list)
    carries: list[Carry] = field(default_factory=list)
    flip_flops: list[FlipFlop] = field(default_factory=list)
    rams: list[Ram] = field(default_factory=list)
    pins_in: list[Pin] = field(default_factory=list)
    pins_out: list[Pin] = field(default_factory=list)
    unsupported: list[Unsupported] = field(default_factory=list)
    pin_unknown: Unsupported | None = None  # why nothing can be said of the counted pin, whatever drives it

    @property
    def clocked(self) -> list[FlipFlop | Port]:
        """Everything that acts on an edge."""
        return [*self.flip_flops, *(port for ram in self.rams for port in (ram.read, ram.write))]


def icebox_folder() -> str:
    """Return where IceStorm's Python modules are, or raise the sentence that says how to get them."""
    folder = next((folder for folder in ICEBOX_FOLDERS if Path(folder, "icebox.py").is_file()), None)
    if folder is None:
        raise TwinToolsError(tool="icebox (Project IceStorm)", package="fpga-icestorm")
    return folder


def load_icebox() -> Any:
    """Import IceStorm's `icebox`, from where its package puts it."""
    if "icebox" not in sys.modules:
        sys.path.append(icebox_folder())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it was written before Python warned of "\\d" in a plain string
        return importlib.import_module("icebox")


CLOCK_PIN = Pin(12, 31, 1)  # SG48 pin 35, fed with 48 MHz on the pico2-ice
COUNTED_PIN = Pin(18, 31, 1)  # SG48 pin 27, RP2350 GPIO 20


def decode(ascii_file: Path, clock: Pin = CLOCK_PIN, counted: Pin = COUNTED_PIN) -> Netlist:
    """Read the ASCII form of a bitstream (`iceunpack`) into a netlist."""
    icebox = load_icebox()
    chip = icebox.iceconfig()
    chip.read_file(str(ascii_file))
    return _Decoder(icebox, chip).run(clock, counted)


class _Decoder:
    def __init__(self, icebox: Any, chip: Any) -> None:
        self.icebox, self.chip = icebox, chip
        self.net_of: dict[Segment, int] = {}
        self.next_net = 2
        self.used_luts: set[tuple[int, int, int]] = set()

    def run(self, clock: Pin, counted: Pin) -> Netlist:
        self._group()
        netlist = Netlist(self.chip.device, 0, -1, -1)
        self._logic(netlist)
        netlist.rams += [ram for x, y in sorted(self.chip.ramb_tiles) if (ram := self._ram(x, y)) is not None]
        self._pins(netlist, clock, counted)
        netlist.unsupported += self._unsupported()
        netlist.nets = self.next_net
        return netlist

    def _group(self) -> None:
        """Number the nets: everything that routing connects is one."""
        padins = []
        for bit in self.chip.extra_bits:
            entry = self.chip.lookup_extra_bit(bit)
            if entry[0] == "padin_glb_netwk":
                x, y, index = self.chip.padin_pio_db()[int(entry[1])]
                padins.append(((x, y, f"io_{index}/D_IN_0"), (x, y, f"padin_{index}")))
        for segments in self.chip.group_segments(extra_connections=padins):
            number = self._new_net()
            for segment in segments:
                self.net_of[segment] = number
                found = re.match(r"lutff_(\d)/", segment[2])
                if found and (segment[0], segment[1]) in self.chip.logic_tiles:
                    self.used_luts.add((segment[0], segment[1], int(found[1])))

    def _new_net(self) -> int:
        self.next_net += 1
        return self.next_net - 1

    def _net(self, x: int, y: int, name: str, default: int | None = None) -> int:
        """Return the net of a segment; an unconnected one is `default`, or a new net for an output."""
        number = self.net_of.get((x, y, name), default)
        if number is None:
            number = self.net_of[x, y, name] = self._new_net()
        return number

    def _logic(self, netlist: Netlist) -> None:
        icebox, tiles = self.icebox, self.chip.logic_tiles
        carries = [p for p in self.used_luts if icebox.get_lutff_seq_bits(tiles[p[0], p[1]], p[2])[0] == "1"]
        for x, y, i in carries:
            self._net(x, y, f"lutff_{i}/cout")
        for x, y, i in sorted(self.used_luts):
            tile = tiles[x, y]
            carry, registered, set_not_reset, is_async = icebox.get_lutff_seq_bits(tile, i)
            inputs = tuple(self._net(x, y, f"lutff_{i}/in_{n}", 0) for n in range(4))
            lut_out = self._net(x, y, f"lutff_{i}/lout")
            init = sum(1 << n for n, bit in enumerate(icebox.get_lutff_lut_bits(tile, i)) if bit == "1")
            netlist.luts.append(Lut(inputs, lut_out, init, (x, y, i)))  # type: ignore[arg-type]  # four of them
            if carry == "1":
                carry_in = self._carry_in(tile, x, y, i)
                netlist.carries.append(
                    Carry((inputs[1], inputs[2], carry_in), self._net(x, y, f"lutff_{i}/cout"), (x, y, i))
                )
            out = self._net(x, y, f"lutff_{i}/out")
            if registered == "1":
                netlist.flip_flops.append(
                    FlipFlop(
                        clock=self._net(x, y, "lutff_global/clk", 0),
                        negative_edge=icebox.get_negclk_bit(tile) == "1",
                        enable=self._net(x, y, "lutff_global/cen", 1),
                        reset=self._net(x, y, "lutff_global/s_r", 0),
                        reset_async=is_async == "1",
                        reset_value=int(set_not_reset),
                        data=lut_out,
                        output=out,
                        place=(x, y, i),
                    )
                )
            else:  # the register is bypassed: a look-up table that passes in0
                netlist.luts.append(Lut((lut_out, 0, 0, 0), out, 0xAAAA, (x, y, i)))

    def _carry_in(self, tile: Any, x: int, y: int, i: int) -> int:
        if i > 0:
            return self._net(x, y, f"lutff_{i - 1}/cout", 0)
        if self.icebox.get_carry_cascade_bit(tile) == "0":
            return int(self.icebox.get_carry_bit(tile))
        return self._net(x, y, "carry_in_mux", 0)

    def _pins(self, netlist: Netlist, clock: Pin, counted: Pin) -> None:
        for (x, y), tile in self.chip.io_tiles.items():
            config = self.icebox.tileconfig(tile)
            types = [["0"] * 6, ["0"] * 6]
            negative = False
            for entry in self.chip.tile_db(x, y):
                if entry[1].startswith("IOB_") and entry[2].startswith("PINTYPE_") and config.match(entry[0]):
                    types[int(entry[1][-1])][int(entry[2][-1])] = "1"
                elif entry[1] == "NegClk" and config.match(entry[0]):
                    negative = True
            for index in (0, 1):
                self._pin(netlist, Pin(x, y, index), "".join(types[index]), negative)
        netlist.clock = self._net(clock.x, clock.y, f"io_{clock.pad}/D_IN_0")
        pad = self.net_of.get((counted.x, counted.y, f"io_{counted.pad}/PAD"))
        if pad is None:
            special = next((u for u in netlist.unsupported if u.detail.startswith(f"{counted} ")), None)
            netlist.pin_unknown = special or Unsupported("floating_pin", f"nothing drives the counted pin {counted}")
        netlist.counted = 0 if pad is None else pad

    def _pin(self, netlist: Netlist, pin: Pin, kind: str, negative: bool) -> None:
        """Wire one IO cell. `kind`: PIN_TYPE bits, least significant first (IceStorm, SB_IO)."""
        x, y, i = pin
        if (x, y, f"io_{i}/D_IN_0") in self.net_of or (x, y, f"io_{i}/D_IN_1") in self.net_of:
            netlist.pins_in.append(pin)
        if kind[2:] == "0000" or (x, y, f"io_{i}/D_OUT_0") not in self.net_of:
            return
        netlist.pins_out.append(pin)
        if kind[4:] != "10":
            netlist.unsupported.append(Unsupported("tristate_pin", f"{pin} has an output enable"))
            return
        data = self._net(x, y, f"io_{i}/D_OUT_0", 0)
        if kind[2:4] == "01":
            self.net_of[x, y, f"io_{i}/PAD"] = data
        elif kind[2] == "1":
            pad = self._net(x, y, f"io_{i}/PAD")
            if kind[3] == "1":
                inverted = self._new_net()
                netlist.luts.append(Lut((data, 0, 0, 0), inverted, 0x5555, pin))
                data = inverted
            netlist.flip_flops.append(
                FlipFlop(
                    clock=self._net(x, y, "io_global/outclk", 0),
                    negative_edge=negative,
                    enable=self._net(x, y, "io_global/cen", 1),
                    reset=0,
                    reset_async=False,
                    reset_value=0,
                    data=data,
                    output=pad,
                    place=pin,
                )
            )
        else:
            netlist.unsupported.append(Unsupported("ddr_pin", f"{pin} sends on both clock edges"))

    def _ram(self, x: int, y: int) -> Ram | None:
        """Read the RAM of the tile pair (x, y) and (x, y+1); None when it is switched off."""
        tiles = {part: self.chip.tile(x, y + part) for part in (0, 1)}
        match: dict[str, bool] = {}
        for part, tile in tiles.items():
            config = self.icebox.tileconfig(tile)
            match |= {e[2]: config.match(e[0]) for e in self.chip.tile_db(x, y + part) if e[1] == "RamConfig"}
        newer = self.chip.device in ("8k", "5k", "u4k")
        if match["PowerUp"] != newer:
            return None
        negative = [self.icebox.get_negclk_bit(tiles[part]) == "1" for part in (0, 1)]
        if self.chip.device == "8k":  # the only one that reads through its lower tile
            negative.reverse()

        def net(name: str, default: int | None = 0) -> int:
            lower = self.net_of.get((x, y, f"ram/{name}"))
            return lower if lower is not None else self._net(x, y + 1, f"ram/{name}", default)

        def bits(name: str, count: int, default: int | None = 0) -> tuple[int, ...]:
            return tuple(net(f"{name}_{n}", default) for n in range(count))

        def mode(low: str, high: str) -> int:
            return int(match[low]) + 2 * int(match[high])

        write = Port(
            net("WCLK"), negative[0], (net("WE"), net("WCLKE", 1)), bits("WADDR", 11), mode("CBIT_0", "CBIT_1")
        )
        read = Port(net("RCLK"), negative[1], (net("RE"), net("RCLKE", 1)), bits("RADDR", 11), mode("CBIT_2", "CBIT_3"))
        rows = [int(row, 16) for row in self.chip.ram_data.get((x, y), ["0"] * 16)]
        init = tuple(row >> 16 * word & 0xFFFF for row in rows for word in range(16))
        return Ram(read, write, bits("MASK", 16), bits("WDATA", 16), bits("RDATA", 16, None), init, (x, y))

    def _unsupported(self) -> list[Unsupported]:
        found = []
        prefixes = {"pll": "pll"}
        tiles: dict[str, set[tuple[int, int]]] = {}
        for x, y, name in self.net_of:
            for prefix, reason in prefixes.items():
                if name.startswith(prefix):
                    tiles.setdefault(reason, set()).add((x, y))
            if self.chip.device in ("5k", "u4k") and x in (0, self.chip.max_x) and name.startswith("lutff_"):
                tiles.setdefault("hard_block", set()).add((x, y))
        for reason, places in sorted(tiles.items()):
            found.append(Unsupported(reason, f"used at tiles {sorted(places)}"))
        return found
