"""What importing costs: time and memory over a bare interpreter."""

from __future__ import annotations

import subprocess
import sys
import time

from rows import Row, alternate, main

MEMORY = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"


def seconds(statement: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - started


def megabytes(statement: str) -> float:
    done = subprocess.run([sys.executable, "-c", f"{statement}; {MEMORY}"], check=True, capture_output=True, text=True)
    return float(done.stdout)


def measure() -> list[Row]:
    rows = []
    for statement, promise in [
        ("import fieldstation", "< 50 ms, < 16 MB"),
        ("import fieldstation.cli.main", ""),
        ("import fieldstation.kit", "< 30 ms more than bare"),
        ("import fieldstation.kit.mqtt_outbox", "< 25 MB"),
        ("import fieldstation.flow.light", "< 30 MB"),
        ("import prefect.workers.process", "the worker it stands in for"),
    ]:
        ours, bare, ratio = alternate(lambda s=statement: seconds(s), lambda: seconds("pass"), rounds=15)
        rows.append(Row(f"`{statement}`: time", f"{ours * 1e3:.0f} ms", f"{bare * 1e3:.0f} ms, bare", ratio, promise))
        ours, bare, ratio = alternate(lambda s=statement: megabytes(s), lambda: megabytes("pass"), rounds=5)
        rows.append(Row(f"`{statement}`: memory", f"{ours:.1f} MB", f"{bare:.1f} MB, bare", ratio, promise))
    return rows


if __name__ == "__main__":
    main("footprint", measure)
