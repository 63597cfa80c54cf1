"""Logging set-up: one structured formatter, context fields such as station or device, secrets masked.

Modules log through the standard `logging.getLogger(__name__)`; nothing here runs at import.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fieldstation.core.errors import ConfigError

# Libraries that tell each of their steps at INFO; they are heard at DEBUG, and their warnings always.
_TALKATIVE = ("alembic", "httpx", "httpcore", "engineio", "socketio", "uvicorn.access")


@dataclass(slots=True)
class _Choice:
    level: str = "INFO"
    file: Path | None = None
    as_json: bool = False


_chosen = _Choice()

_HANDLER_NAME = "fieldstation"  # the mark by which a second set-up finds what the first one added

_context: ContextVar[MappingProxyType[str, object]] = ContextVar("log_context", default=MappingProxyType({}))

# What a secret looks like in text: user-info in an address, an Authorization header, a token of ours or of Slack,
# a setting or a JSON member with a telling name. Masking a word too many is fine, one too few is not.
_SECRETS = (
    (re.compile(r"(?<=://)([^/\s:@]*):[^/\s]+@"), r"\1:***@"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), r"\1 ***"),
    (re.compile(r"\bfs[tls]_[\w-]{8,}"), "fs***"),
    (re.compile(r"\bx(?:ox[a-z]|app)-[\w-]{8,}"), "x***"),
    (re.compile(r"(?i)((?:password|passwd|secret|token|api_?key)=)[^\s&'\",;]+"), r"\1***"),
    (re.compile(r"""(?i)(["'][\w-]*(?:password|passwd|secret|token|api_?key)["']\s*:\s*["'])[^"']+"""), r"\1***"),
)


def mask(text: str) -> str:
    """Return `text` with passwords in addresses, authorization headers, tokens and secrets replaced by `***`."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


@contextmanager
def context(**fields: object) -> Iterator[None]:
    """Add `fields` to every log line written inside the block, in this task and those it starts.

    A function is called for each line; when it returns None the line goes without that field.
    """
    token = _context.set(MappingProxyType({**_context.get(), **fields}))
    try:
        yield
    finally:
        _context.reset(token)


def current_context() -> dict[str, object]:
    """Return the fields that `context` has set here."""
    fields = {key: value() if callable(value) else value for key, value in _context.get().items()}
    return {key: value for key, value in fields.items() if value is not None}


class _ContextFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        # Kept on the record: a handler in another thread would see another context.
        record.fields = {**current_context(), **getattr(record, "fields", {})}
        return True


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z INFO  fleet.worker [device=A1] text`"""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, masked; exceptions follow on their own lines."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        fields = " ".join(f"{key}={value}" for key, value in getattr(record, "fields", {}).items())
        name = record.name.removeprefix("fieldstation.")
        line = f"{stamp} {record.levelname:<7} {name}{f' [{fields}]' if fields else ''} {record.getMessage()}"
        # What a stranger sent may hold line ends; it shall not be able to write a line of its own.
        line = line.replace("\r", "\\r").replace("\n", "\n    ")
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return mask(line)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time` (Unix seconds), `level`, `logger`, `message`, the context fields, `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, masked."""
        entry: dict[str, Any] = {
            "time": round(record.created, 6),
            "level": record.levelname,
            "logger": record.name,
            "message": mask(record.getMessage()),
        }
        for key, value in getattr(record, "fields", {}).items():
            entry.setdefault(key, mask(str(value)))
        if record.exc_info:
            entry["exception"] = mask(self.formatException(record.exc_info))
        return json.dumps(entry)


def setup(level: str | None = None, *, file: Path | None = None, as_json: bool | None = None) -> None:
    """Send all log records to stderr, and to `file` (rotated at 10 MB, five kept) when one is named.

    Fields are added with `context` or `log.info("...", extra={"fields": {...}})`. Calling it again replaces what an
    earlier call set up; what is None stays as that call chose it (at first INFO, no file, text).
    """
    import logging.handlers  # brings sockets and queues, for those who keep a log file

    level = level or _chosen.level
    file = file or _chosen.file
    as_json = _chosen.as_json if as_json is None else as_json
    if level.upper() not in logging.getLevelNamesMapping():
        raise ConfigError(
            key="'level'", source="the logging settings", problem=f"{level!r} is not a level such as INFO"
        )
    formatter: logging.Formatter = JsonFormatter() if as_json else TextFormatter()
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if file is not None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            handlers.append(logging.handlers.RotatingFileHandler(file, maxBytes=10_000_000, backupCount=5))
        except OSError as error:
            raise ConfigError(f"The log file {file} cannot be written: {error.strerror}.") from error
    root = logging.getLogger()
    for old in [h for h in root.handlers if h.get_name() == _HANDLER_NAME]:
        root.removeHandler(old)
        old.close()
    for handler in handlers:
        handler.setFormatter(formatter)
        handler.addFilter(_ContextFilter())
        handler.set_name(_HANDLER_NAME)
        root.addHandler(handler)
    _chosen.level, _chosen.file, _chosen.as_json = level, file, as_json
    root.setLevel(level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.NOTSET if root.level <= logging.DEBUG else logging.WARNING)
