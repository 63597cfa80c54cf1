"""A process that answers one bitstream after another, with the chip's tables loaded once.

Reads JSON lines `{"folder": <with design.bin>, "conditions": {...}, "sampled": bool}` from stdin, writes one JSON line
for each. Its parent sets time limits by killing it; the memory ceiling that it sets on itself holds for the compiler
and the program it starts too.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from fieldstation.core.children import die_with_parent
from fieldstation.fleet.twin.evaluate import evaluate
from fieldstation.fleet.twin.model import Conditions, unknown
from fieldstation.fleet.twin.netlist import Pin, load_icebox


def main() -> None:
    """Answer until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes our stdin
    ceiling = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    die_with_parent(signal.SIGKILL)  # nobody is left to hear the answer
    load_icebox()
    for line in sys.stdin:
        job = json.loads(line)
        conditions = job["conditions"]
        for key in ("clock_pin", "counted_pin"):
            conditions[key] = Pin(*conditions[key])
        try:
            answer = evaluate(Path(job["folder"]), Conditions(**conditions), job["sampled"])
        except MemoryError:
            answer = unknown("too_large", f"the design needs more than {ceiling >> 20} MiB")
        except Exception as error:
            answer = unknown("too_large", f"{type(error).__name__}: {error}")
        sys.stdout.write(json.dumps(asdict(answer)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
