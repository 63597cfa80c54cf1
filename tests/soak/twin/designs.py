"""Small designs in Verilog, built with yosys and nextpnr, and counted by iverilog as an independent judge."""

from __future__ import annotations

import subprocess
from pathlib import Path

from fieldstation.testing import program

LUT_LOOP = "(* keep *) wire a; SB_LUT4 #(.LUT_INIT(16'h5555)) l(.O(a),.I0(a),.I1(1'b0),.I2(1'b0),.I3(1'b0));"


def _ram(width: int) -> str:
    depth = 4096 // width
    bits = depth.bit_length() - 1
    return f"""reg [{width - 1}:0] m[0:{depth - 1}]; integer i; initial for(i=0;i<{depth};i=i+1) m[i]=(i*37)>>2;
        reg [{bits - 1}:0] a=0, b=5; reg [{width - 1}:0] q=0; reg [7:0] e=0;
        always @(posedge clk) begin a<=a+1; b<=b+3; q<=m[a]; e<=e+q; if (e[0]) m[b]<=q^e; end assign out=e[1];"""


DESIGNS = {
    "counter": "reg [9:0] c=0; always @(posedge clk) c<=c+1; assign out=c[9];",
    "divider": """reg [12:0] c=0; reg o=0;
        always @(posedge clk) if (c==4999) begin c<=0; o<=!o; end else c<=c+1; assign out=o;""",
    "ripple": """reg a=0,b=0,c=0; always @(posedge clk) a<=!a; always @(posedge a) b<=!b;
        always @(negedge b) c<=!c; assign out=c;""",
    "lfsr16": """reg [15:0] s=1; always @(posedge clk) s<={s[14:0], s[15]^s[13]^s[12]^s[10]};
        assign out=s[3];""",
    "lfsr32": """reg [31:0] s=1; always @(posedge clk) s<={s[30:0], s[31]^s[21]^s[1]^s[0]};
        assign out=s[7];""",
    "shift_register": "reg [31:0] s=32'h1; always @(posedge clk) s<={s[30:0],s[31]}; assign out=s[5];",
    "gated_clock": """reg [7:0] c=0; reg [5:0] g=0; always @(posedge clk) c<=c+1; wire gclk = clk & c[7];
        always @(posedge gclk) g<=g+1; assign out=g[3];""",
    "falling_clock": """reg [7:0] c=0; reg o=0; always @(negedge clk) c<=c+3;
        always @(posedge clk) o<=c[7]; assign out=o;""",
    "enable": """reg [7:0] c=0; reg [7:0] d=0;
        always @(posedge clk) begin c<=c+1; if (c==200) d<=d+1; end assign out=d[1];""",
    "async_reset": """reg [7:0] c=0; reg [6:0] d=0; always @(posedge clk) c<=c+1; wire r=(c[6:0]==99);
        always @(posedge clk or posedge r) if (r) d<=0; else d<=d+1; assign out=d[3];""",
    "clock_out": "assign out=clk;",
    "ram16": _ram(16),
    "ram8": _ram(8),
    "ram4": _ram(4),
    "ram2": _ram(2),
}

TESTBENCH = """module tb; reg clk=0; wire out; top t(clk,out); integer n=0; integer k;
always @(posedge out) if ($time>0) n=n+1;
initial begin #1; for(k=0;k<{cycles};k=k+1) begin clk=1; #1; clk=0; #1; end $display("%0d",n); $finish; end
endmodule
"""


def build(body: str, folder: Path) -> bytes:
    """Synthesise, place and route for the pico2-ice; return the bitstream."""
    for tool in ("yosys", "nextpnr-ice40", "icepack"):
        program(tool)  # raises with the command that installs it
    (folder / "top.v").write_text(f"module top(input clk, output out);\n{body}\nendmodule\n")
    (folder / "top.pcf").write_text("set_io clk 35\nset_io out 27\n")
    place = "nextpnr-ice40 -q --up5k --package sg48 --json top.json --pcf top.pcf --asc top.asc --force"
    for command in ('yosys -q -p "synth_ice40 -top top -json top.json" top.v', place, "icepack top.asc top.bin"):
        subprocess.run(command, shell=True, cwd=folder, check=True, capture_output=True)
    return (folder / "top.bin").read_bytes()


def judge(folder: Path, cycles: int) -> int:
    """Return what iverilog counts of the source that `build` left in `folder`."""
    (folder / "tb.v").write_text(TESTBENCH.format(cycles=cycles))
    subprocess.run([program("iverilog"), "-o", "tb", "tb.v", "top.v"], cwd=folder, check=True, capture_output=True)
    return int(subprocess.run(["./tb"], cwd=folder, check=True, capture_output=True, text=True).stdout)
