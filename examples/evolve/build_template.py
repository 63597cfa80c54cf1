"""Build template.asc.gz, once, with yosys and nextpnr-ice40. Whoever only runs the search needs neither."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
BITS = 16

# Each gene is the content of one look-up table: all zeros or all ones, whatever its input. The counter runs from 0 to
# the number that the genes spell; then the output turns over.
GENE = """(* keep *) SB_LUT4 #(.LUT_INIT(16'h0000))
    gene{n} (.O(top[{n}]), .I0(count[{n}]), .I1(1'b0), .I2(1'b0), .I3(1'b0));"""
DESIGN = """module divider(input clk, output reg out = 0);
(* keep *) wire [{last}:0] top;
reg [{last}:0] count = 0;
{genes}
always @(posedge clk) if (count == top) begin count <= 0; out <= !out; end else count <= count + 1;
endmodule
"""


def main() -> None:
    """Synthesise, place and route; then look up where each gene was placed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        genes = "\n".join(GENE.format(n=n) for n in range(BITS))
        (folder / "divider.v").write_text(DESIGN.format(last=BITS - 1, genes=genes))
        (folder / "pins.pcf").write_text("set_io clk 35\nset_io out 27\n")
        for command in (
            ["yosys", "-q", "-p", "synth_ice40 -top divider -json divider.json", "divider.v"],
            [
                *("nextpnr-ice40", "-q", "--up5k", "--package", "sg48", "--json", "divider.json", "--pcf", "pins.pcf"),
                *("--asc", "divider.asc", "--write", "placed.json"),
            ],
        ):
            subprocess.run(command, cwd=folder, check=True)
        (module,) = json.loads((folder / "placed.json").read_text())["modules"].values()
        places = [place(module["cells"], n) for n in range(BITS)]
        # No time stamp in the archive: the same tools make the same file.
        (HERE / "template.asc.gz").write_bytes(gzip.compress((folder / "divider.asc").read_bytes(), 9, mtime=0))
    (HERE / "genes.json").write_text(json.dumps(places) + "\n")


def place(cells: dict, gene: int) -> list[int]:
    """Return tile column, tile row and cell of a gene's look-up table."""
    (found,) = [cell for name, cell in cells.items() if name.startswith(f"gene{gene}_") or name == f"gene{gene}"]
    match = re.fullmatch(r"X(\d+)/Y(\d+)/lc(\d)", found["attributes"]["NEXTPNR_BEL"])
    return [int(number) for number in match.groups()]


if __name__ == "__main__":
    main()
