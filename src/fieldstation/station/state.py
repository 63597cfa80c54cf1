"""What procedures share with each other and with the main loop, in `data/state.json`."""

from __future__ import annotations

import contextlib
import datetime
import logging
import time
from collections.abc import Generator
from pathlib import Path

import pydantic

from fieldstation.core.files import write_file
from fieldstation.station.config import ForeignConfig
from fieldstation.station.lock import exclusive
from fieldstation.station.place import current_place

LOCK_TIMEOUT_S = 6.0

log = logging.getLogger(__name__)


class SystemState(pydantic.BaseModel):
    """What the system checks found last. The load is in percent of all cores."""

    model_config = pydantic.ConfigDict(extra="allow", defer_build=True)

    last_boot_time: datetime.datetime | None = None
    last_5_min_load: float | None = None


class State(pydantic.BaseModel):
    """Shared values. Keys that this version does not know are kept, so that a roll-back finds them."""

    model_config = pydantic.ConfigDict(extra="allow", defer_build=True)

    system: SystemState = SystemState()
    pending_configs: list[ForeignConfig] = []


class StateInterface:
    """Reads and changes the state, one process at a time."""

    @staticmethod
    def load() -> State:
        """Return the state; the default one when there is none or the file is broken (that one is set aside)."""
        return _read(_file())

    @staticmethod
    @contextlib.contextmanager
    def update() -> Generator[State, None, None]:
        """Change the state exclusively: the lock is held until the block ends and the file is safely replaced.

        When the block raises, nothing is written. DeadlineError when another process holds the state for 6 s.
        """
        file = _file()
        with exclusive(file.with_suffix(".lock"), LOCK_TIMEOUT_S):
            state = _read(file)
            yield state
            write_file(file, state.model_dump_json())


def _file() -> Path:
    return current_place().data_dir / "state.json"


def _read(file: Path) -> State:
    try:
        # Written by rename only, so what is read is whole: the old or the new state.
        return State.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return State()
    except ValueError as error:
        aside = file.with_name(f"state.broken-{int(time.time())}.json")
        file.rename(aside)
        log.error("the state was broken and is set aside as %s: %s", aside, error)
        return State()
