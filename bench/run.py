"""Run every bench, each in a process of its own, and write RESULTS.md. Names on the command line choose some.

`--slow` makes those long that have a short form.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    wanted = sys.argv[1:] or sorted(path.stem for path in HERE.glob("*.py") if path.stem not in ("run", "rows"))
    failed = []
    for name in wanted:
        print(f"\n## {name}", flush=True)
        if subprocess.run([sys.executable, HERE / f"{name}.py", "--write", "--slow"], check=False).returncode != 0:
            failed.append(name)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


main()
