"""Is an observing run active? By the name of a process, or by a file that the acquisition software keeps."""

from __future__ import annotations

import asyncio
from pathlib import Path


def process_named(name: str, proc: Path = Path("/proc")) -> bool:
    """True when a process of this host has exactly this name. Processes that end while we look are passed over."""
    for folder in proc.iterdir():
        if folder.name.isdigit():
            try:
                if (folder / "comm").read_text().rstrip("\n") == name:
                    return True
            except OSError:
                continue
    return False


async def run_active(process: str, file: str | None) -> str | None:
    """Return None when a run is active, else what was looked for in vain. An empty `process` asks nothing."""
    if file:
        return None if await asyncio.to_thread(Path(file).exists) else f"the file {file} does not exist"
    if not process or await asyncio.to_thread(process_named, process):
        return None
    return f"real DAQ software is not active, no process is named {process!r}"
