"""Cut a simulated board's power, as uhubctl does a real one's: `python -m fieldstation.fleet.sim.power SOCKET SERIAL`.

For the worker's setting `power_cycle`; SOCKET is the simulated driver's setting `socket`.
"""

from __future__ import annotations

import json
import socket
import sys


def main(path: str, serial: str) -> int:
    """Say so to the boards; returns the exit code."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(10)
        line.connect(path)
        line.sendall(json.dumps({"cmd": "cycle", "serial": serial}).encode() + b"\n")
        answer = json.loads(line.makefile().readline())
    if "error" in answer:
        sys.stderr.write(f"{answer['error']}\n")
    return 0 if answer.get("ok") else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
