"""The documented constants. Those that name a folder follow the environment, so they are computed when read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal

from fieldstation.station.place import Place, current_place
from fieldstation.station.version import Version

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "EXCEPTION"]

LOGGING_LEVEL_PRIORITIES: Final[dict[LogLevel, int]] = {
    "DEBUG": 0,
    "INFO": 1,
    "WARNING": 2,
    "ERROR": 3,
    "EXCEPTION": 4,
}
SECONDS_PER_GRACEFUL_PROCEDURE_TEARDOWN: Final = 30
SECONDS_BEYOND_DRAIN: Final = 120  # what a backend gets to end after `max_drain_time`, before it is killed

if TYPE_CHECKING:
    PROJECT_DIR: str
    VERSION: Version
    NAME: str
    IVY_ROOT_DIR: str
    IVY_DATA_DIR: str
    ACTIVE_QUEUE_FILE: str
    MESSAGE_ARCHIVE_DIR: str
    MESSAGE_ARCHIVE_DIR_LOCK: str
    STATE_FILE: str
    STATE_FILE_LOCK: str
    SCRIPT_PATH: str

_COMPUTED: dict[str, Callable[[Place], object]] = {
    "PROJECT_DIR": lambda place: str(place.project_dir),
    "VERSION": lambda place: Version(place.version),
    "NAME": lambda place: place.name,
    "IVY_ROOT_DIR": lambda place: str(place.root_dir),
    "IVY_DATA_DIR": lambda place: str(place.data_dir),
    "ACTIVE_QUEUE_FILE": lambda place: str(place.queue_file),
    "MESSAGE_ARCHIVE_DIR": lambda place: str(place.data_dir / "messages"),
    "MESSAGE_ARCHIVE_DIR_LOCK": lambda place: str(place.data_dir / "messages.lock"),
    "STATE_FILE": lambda place: str(place.data_dir / "state.json"),
    "STATE_FILE_LOCK": lambda place: str(place.data_dir / "state.lock"),
    "SCRIPT_PATH": lambda place: str(place.project_dir / "run.py"),
}


def __getattr__(name: str) -> Any:
    if name in _COMPUTED:
        return _COMPUTED[name](current_place())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def log_level_is_visible(min_log_level: LogLevel | None, log_level: LogLevel) -> bool:
    """Say whether `log_level` is at least as important as `min_log_level`; with None nothing is."""
    if min_log_level is None:
        return False
    return LOGGING_LEVEL_PRIORITIES[log_level] >= LOGGING_LEVEL_PRIORITIES[min_log_level]
