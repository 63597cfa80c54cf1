"""The simulated Hashpipe as a process of its own: `fieldstation stream simulate`."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import random
import sys
import time
from pathlib import Path

from fieldstation.core.service import until_signalled
from fieldstation.stream.model import PRODUCTS
from fieldstation.stream.pff import parse_name
from fieldstation.stream.sim.hashpipe import SimulatedHashpipe
from fieldstation.stream.writer import run_folder, utc_stamp

log = logging.getLogger(__name__)

_PR_SET_NAME = 15


def name_process(name: str) -> None:
    """Take the process name by which servers recognise an active run (/proc/<pid>/comm)."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def _archives(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.pff")):
        if path.stat().st_size:
            found.setdefault(parse_name(path.name).product.name, path)
    return found


async def main(
    data_dir: Path,
    *,
    modules: tuple[int, ...],
    products: tuple[str, ...],
    rate: float,
    frames: int | None,
    max_file_size_mb: float,
    archive: Path | None,
    damage: float,
) -> None:
    """Write a run until stopped, or until `frames` of each product are written."""
    name_process("hashpipe")
    archives = await asyncio.to_thread(_archives, archive) if archive is not None else {}
    start = utc_stamp()
    template = str(run_folder(Path(), 0, start).name)
    hashpipe = SimulatedHashpipe(
        data_dir,
        modules,
        products,
        max_bytes=int(max_file_size_mb * 1e6),
        run_template=f"module_{{module_id}}/{template}",
        archives=archives,
    )
    hashpipe.open()
    sys.stdout.write(f"ready {data_dir}\n")
    sys.stdout.flush()
    try:
        await until_signalled(asyncio.create_task(_write(hashpipe, rate, frames, damage)))
    finally:
        hashpipe.close()


async def _write(hashpipe: SimulatedHashpipe, rate: float, frames: int | None, damage: float) -> None:
    rng = random.Random(0)
    began = time.monotonic()
    steps = 0
    while frames is None or steps < frames:
        hashpipe.step()
        steps += 1
        if rng.random() < damage:
            writer = hashpipe.writer(rng.choice(hashpipe.modules))
            writer.write_raw(PRODUCTS[rng.choice(hashpipe.products)], rng.randbytes(rng.randrange(1, 5000)))
        await asyncio.sleep(max(0.0, began + steps / rate - time.monotonic()))
