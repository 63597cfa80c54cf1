"""Log files with the name and the line that lab backup tools expect: `get_logger("titrator")`.

    ~/Logs/pi3_ada_titrator_2026-01-31_09-05-07.log
    2026-01-31 09:05:08 - [WARNING] - pump 2 slow

The message alone also goes to stdout. A second call with the same name returns the same logger, unchanged.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import re
import socket
import sys
import threading
import time
from pathlib import Path

from fieldstation.core.errors import FieldstationError
from fieldstation.core.log import JsonFormatter
from fieldstation.kit.environment import user_name

_UNSAFE = re.compile(r"[/\\\0-\x1f\x7f:]")
_lock = threading.Lock()


class LogFileError(FieldstationError):
    """The log file {path} cannot be written: {problem}. Lines go to the console only."""


def get_logger(
    logger_name: str,
    *,
    folder: str | Path | None = None,
    console: bool = True,
    max_bytes: int = 10_000_000,
    backups: int = 5,
    keep_days: float | None = None,
    as_json: bool = False,
    background: bool = False,
) -> logging.Logger:
    """Return the standard logger `logger_name` (level DEBUG) that also writes a file in `~/Logs`.

    The file is renamed to `.1`, `.2`, ... when it reaches `max_bytes` (0: never), `backups` of them are kept, and with
    `keep_days` older files of the same logger are deleted first. `as_json` writes JSON lines instead.
    `background=True` writes in a thread, so that a stalling SD card does not stall the caller; what does not fit into
    its buffer of 10,000 lines is dropped and counted in the file. When no file can be written it says so once, on
    stderr, and the logger works without.
    """
    logger = logging.getLogger(logger_name)
    with _lock:
        if any(isinstance(handler, LogFileHandler) for handler in logger.handlers):
            return logger
        logger.setLevel(logging.DEBUG)
        target = Path(folder) if folder is not None else _home() / "Logs"
        handler = LogFileHandler(console=console, max_bytes=max_bytes, backups=backups, background=background)
        if as_json:
            handler.setFormatter(JsonFormatter())
        try:
            if keep_days is not None:
                _delete_old(target, logger_name, keep_days)
            handler.open(target, logger_name)
        except OSError as error:
            sys.stderr.write(f"{LogFileError(path=target, problem=error.strerror or error)}\n")
        logger.addHandler(handler)
    return logger


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:
        raise LogFileError(path="~/Logs", problem=error) from error


def _prefix(logger_name: str) -> str:
    return "_".join(_UNSAFE.sub("_", part) for part in (socket.gethostname(), user_name(), logger_name))


def file_name(logger_name: str, now: float) -> str:
    """Return `<hostname>_<username>_<logger_name>_<YYYY-MM-DD_HH-MM-SS>.log`, local time."""
    return f"{_prefix(logger_name)}_{time.strftime('%Y-%m-%d_%H-%M-%S', time.localtime(now))}.log"


def _delete_old(folder: Path, logger_name: str, keep_days: float) -> None:
    for path in folder.glob("*.log*"):
        if path.name.startswith(_prefix(logger_name) + "_"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > keep_days * 86400:
                    path.unlink()


class LogFileHandler(logging.Handler):
    """Writes the documented line to its file and the bare message to stdout."""

    def __init__(self, *, console: bool, max_bytes: int, backups: int, background: bool) -> None:
        super().__init__(logging.DEBUG)
        self.path: Path | None = None
        self._console = console
        self._max_bytes = max_bytes
        self._backups = backups
        self._descriptor = -1
        self._size = 0
        self._second = (0, "")
        self._complained = False
        self._pid = os.getpid()
        self._waiting: queue.Queue[str | None] | None = queue.Queue(10_000) if background else None
        self._dropped = 0
        self._thread: threading.Thread | None = None

    def open(self, folder: Path, logger_name: str) -> None:
        """Make the file; its name is that of the next second when another process has taken this one's."""
        folder.mkdir(parents=True, exist_ok=True)
        now = time.time()
        while self._descriptor < 0:
            self.path = folder / file_name(logger_name, now)
            with contextlib.suppress(FileExistsError):
                self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
            now += 1

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; a full disk is said once and never raised into the program that logs."""
        try:
            message = record.getMessage()
            line = self._line(record, message)
        except Exception:
            self.handleError(record)
            return
        if self._descriptor >= 0:
            if self._waiting is not None:
                self._enqueue(line)
            else:
                self._write(line)
        # Under a root logger that is set up the line is printed by that one already.
        if self._console and not logging.getLogger().handlers:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.write(f"{message}\n")
                sys.stdout.flush()

    def _line(self, record: logging.LogRecord, message: str) -> str:
        if self.formatter is not None:
            return self.formatter.format(record) + "\n"
        second = int(record.created)
        if second != self._second[0]:
            self._second = (second, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second)))
        line = f"{self._second[1]} - [{record.levelname}] - {message}\n"
        if record.exc_info or record.exc_text or record.stack_info:
            line += _PLAIN.format(record)[len(message) :].lstrip("\n") + "\n"
        return line

    def _write(self, line: str) -> None:
        data = line.encode("utf-8", "backslashreplace")
        try:
            if self._max_bytes and self._size + len(data) > self._max_bytes and self._size:
                self._rotate()
            self._size += os.write(self._descriptor, data)
            self._complained = False
        except OSError as error:
            if not self._complained:
                sys.stderr.write(f"{LogFileError(path=self.path, problem=error.strerror or error)}\n")
            self._complained = True

    def _rotate(self) -> None:
        assert self.path is not None
        for number in range(self._backups - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self.path}.{number}").replace(f"{self.path}.{number + 1}")
        if self._backups:
            self.path.replace(f"{self.path}.1")
        else:
            self.path.unlink()
        os.close(self._descriptor)
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._size = 0

    # -- in the background

    def _enqueue(self, line: str) -> None:
        assert self._waiting is not None
        if self._thread is None or self._pid != os.getpid():
            # A forked child has our queue but not our thread.
            self._pid = os.getpid()
            self._thread = threading.Thread(target=self._work, name="log-file", daemon=True)
            self._thread.start()
        try:
            self._waiting.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def _work(self) -> None:
        assert self._waiting is not None
        while (line := self._waiting.get()) is not None:
            dropped, self._dropped = self._dropped, 0
            if dropped:
                self._write(f"{line[:19]} - [WARNING] - {dropped} lines were dropped: the disk was too slow\n")
            self._write(line)
            self._waiting.task_done()
        self._waiting.task_done()

    def flush(self) -> None:
        """Wait until the lines given so far are written."""
        if self._waiting is not None and self._thread is not None and self._thread.is_alive():
            self._waiting.join()

    def close(self) -> None:
        """Write what waits, then close the file; logging does this when the program ends."""
        with self.lock or contextlib.nullcontext():
            if self._waiting is not None and self._thread is not None and self._thread.is_alive():
                self._waiting.put(None)
                self._thread.join(5)
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)
        super().close()


_PLAIN = logging.Formatter("%(message)s")
