"""A config or version that was switched to and has not proved itself yet. Written before the switch."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fieldstation.core.files import sync, write_file

MAX_STARTS = 3
MAX_DEATHS = 3


@dataclass(frozen=True, slots=True)
class Trial:
    """What is tried, and how to get back. `previous_config` is the whole config that was in force, secrets and all."""

    kind: Literal["config", "version"]
    digest: str
    revision: int
    from_version: str
    to_version: str
    from_dir: str
    to_dir: str
    previous_config: dict[str, Any]
    needs_broker: bool
    starts: int = 0


@dataclass(frozen=True, slots=True)
class Evidence:
    """How the station does since it runs what is tried."""

    running_s: float
    calm_s: float  # since the last start or death of a procedure
    deaths: int
    all_running: bool
    online: bool


def verdict(trial: Trial, evidence: Evidence, window_s: float, settle_s: float) -> tuple[bool | None, str]:
    """Return True to keep it, False to roll back (and why), None while nobody can say yet."""
    if evidence.deaths >= MAX_DEATHS:
        return False, f"procedures died {evidence.deaths} times under it"
    calm = evidence.all_running and evidence.calm_s >= settle_s
    if calm and (evidence.online or not trial.needs_broker):
        return True, ""
    if evidence.running_s >= window_s:
        if trial.needs_broker and not evidence.online:
            return False, f"the server was not reached within {window_s:g} s"
        return False, f"the procedures did not run steadily within {window_s:g} s"
    return None, ""


class TrialFile:
    """The trial on disk, in the data folder that all versions share."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "trial.json"

    def load(self) -> Trial | None:
        """Return the trial that is under way."""
        try:
            return Trial(**json.loads(self._path.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            # Written by rename, so this is no half-written file; but nobody can tell what it meant.
            self.clear()
            return None

    def save(self, trial: Trial) -> None:
        """Write it, durably; for our eyes only, since the old config is in it."""
        write_file(self._path, json.dumps(dataclasses.asdict(trial)), mode=0o600)

    def clear(self) -> None:
        """End the trial."""
        self._path.unlink(missing_ok=True)
        if self._path.parent.is_dir():
            sync(self._path.parent)
