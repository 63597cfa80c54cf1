"""What a running pipeline writes down for the commands beside it: who runs, where NATS is, how each replica does."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fieldstation.core.files import state_folder, write_file
from fieldstation.pipeline.errors import PipelineNotRunningError


@dataclass(slots=True)
class ReplicaState:
    """One process of ours."""

    workflow: str
    process: str
    number: int
    pid: int = 0
    url: str = ""
    restarts: int = 0
    state: str = "starting"


@dataclass(slots=True)
class PipelineState:
    """One pipeline on this machine. `manifest` is the path of its krt.yaml."""

    product: str
    manifest: str
    nats_url: str
    pid: int
    replicas: list[ReplicaState] = field(default_factory=list)


def folder_of(product: str, base: Path | None) -> Path:
    """Where a pipeline keeps its broker's store, its logs and its state."""
    if base is not None:
        return base
    return state_folder() / "pipeline" / product


def write(folder: Path, state: PipelineState) -> None:
    """Replace the state file in one step."""
    write_file(folder / "state.json", json.dumps(asdict(state), indent=1), durable=False)


def read(folder: Path, product: str) -> PipelineState:
    """Return the state; PipelineNotRunningError when there is none."""
    try:
        data: dict[str, Any] = json.loads((folder / "state.json").read_text())
        replicas = [ReplicaState(**replica) for replica in data.pop("replicas")]
        return PipelineState(**data, replicas=replicas)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise PipelineNotRunningError(product=product, state=folder) from error


def is_alive(pid: int) -> bool:
    """True when process `pid` is a pipeline of ours: another program may have the number of a killed one by now."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False  # somebody else's process
    try:
        return b"fieldstation" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return not Path("/proc").is_dir()


def remove(folder: Path) -> None:
    """Forget the state."""
    (folder / "state.json").unlink(missing_ok=True)
