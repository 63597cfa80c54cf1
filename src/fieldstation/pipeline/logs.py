"""The node's log: the documented JSON record, cheap when nobody reads it, with the request id of the call that logs."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from fieldstation.core.log import TextFormatter, current_context, mask
from fieldstation.pipeline.config import LoggerConfig
from fieldstation.pipeline.work import current

_MARK = "fieldstation"  # the name core.log gives its handlers, so that either set-up replaces the other


class _RequestId(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        work = current.get()
        fields = dict(current_context())
        if work is not None and work.message is not None:
            fields["request_id"] = work.message.request_id
        record.fields = fields
        return True


class NodeJsonFormatter(logging.Formatter):
    """`level, ts` (Unix seconds)`, logger, caller` (file:line)`, msg`, and the bound fields such as `request_id`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, secrets masked."""
        entry: dict[str, object] = {
            "level": record.levelname,
            "ts": round(record.created, 6),
            "logger": record.name.removeprefix("fieldstation."),
            "caller": f"{record.filename}:{record.lineno}",
            "msg": mask(record.getMessage()),
        }
        entry |= {key: mask(str(value)) for key, value in getattr(record, "fields", {}).items()}
        if record.exc_info:
            entry["exception"] = mask(self.formatException(record.exc_info))
        return json.dumps(entry)


def setup(settings: LoggerConfig) -> None:
    """Send log records where the configuration says; a second call replaces the first."""
    formatter = NodeJsonFormatter() if settings.encoding.lower() == "json" else TextFormatter()
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if handler.get_name() == _MARK]:
        root.removeHandler(old)
        old.close()
    errors_apart = bool(settings.error_output_paths)
    handlers = [(_handler(path), False) for path in settings.output_paths]
    handlers += [(_handler(path), True) for path in settings.error_output_paths]
    for handler, for_errors in handlers:
        handler.setFormatter(formatter)
        handler.addFilter(_RequestId())
        handler.set_name(_MARK)
        if for_errors:
            handler.setLevel(logging.ERROR)
        elif errors_apart:
            handler.addFilter(lambda record: record.levelno < logging.ERROR)
        root.addHandler(handler)
    root.setLevel(_level(settings.level))


def _level(name: str) -> int:
    # The Go SDK writes InfoLevel, the Python SDK INFO.
    word = name.upper().removesuffix("LEVEL")
    return logging.getLevelNamesMapping().get({"WARN": "WARNING"}.get(word, word), logging.INFO)


def _handler(path: str) -> logging.Handler:
    if path in ("stdout", "stderr"):
        return logging.StreamHandler(getattr(sys, path))
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    return logging.FileHandler(file)
