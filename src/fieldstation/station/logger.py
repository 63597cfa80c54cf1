"""`Logger`: one entry, three channels (console, file, messages), each with a verbosity of its own."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path
from typing import Literal

from fieldstation.core.log import mask
from fieldstation.station.agent import MessagingAgent
from fieldstation.station.archive import day_of
from fieldstation.station.config import Config, as_data
from fieldstation.station.constants import LogLevel, log_level_is_visible
from fieldstation.station.heartbeat import beat
from fieldstation.station.logline import Block, StormLimit, blocks_text, entry, exception_blocks
from fieldstation.station.messages import LogMessageBody
from fieldstation.station.place import current_place
from fieldstation.station.secrets import MASK, secret_values

_MESSAGE_LIMIT = 16_384  # characters of a body that a server takes


class Logger:
    """Writes entries to the console, to `data/logs/YYYY-MM-DD.log` (UTC day) and, with an uplink, as messages.

    Never raises: a full disk is no reason to stop measuring. Many processes may log to one file. The same entry is
    shown five times a minute and then counted. Secrets of the config are masked.
    """

    def __init__(self, config: Config, origin: str, *, agent: MessagingAgent | None = None) -> None:
        self.config = config
        self.origin = origin
        self._agent = agent
        self._storm = StormLimit()
        self._secrets = [value for value in secret_values(as_data(config)) if len(value) > 3]
        self._folder = current_place().data_dir / "logs"

    def debug(self, message: str, details: str | None = None) -> None:
        """Write a DEBUG entry."""
        self._write_log_line("DEBUG", message, [("details", details)])

    def info(self, message: str, details: str | None = None) -> None:
        """Write an INFO entry."""
        self._write_log_line("INFO", message, [("details", details)])

    def warning(self, message: str, details: str | None = None) -> None:
        """Write a WARNING entry."""
        self._write_log_line("WARNING", message, [("details", details)])

    def error(self, message: str, details: str | None = None) -> None:
        """Write an ERROR entry."""
        self._write_log_line("ERROR", message, [("details", details)])

    def exception(self, e: BaseException, label: str | None = None, details: str | None = None) -> None:
        """Write an EXCEPTION entry: subject `(label, )ZeroDivisionError: text`, blocks with details and traceback."""
        subject = (f"{label}, " if label else "") + f"{type(e).__name__}: {e}"
        self._write_log_line("EXCEPTION", subject, exception_blocks(e, details))

    def horizontal_line(self, fill_char: Literal["-", "=", ".", "_"] = "=") -> None:
        """Write a line of forty characters at INFO."""
        self._write_log_line("INFO", fill_char * 40, [])

    def teardown(self) -> None:
        """Tell what was held back, and let go of the store."""
        for key, held in self._storm.flush().items():
            level, _, subject = key.partition(" ")
            self._emit(level, f"{subject} (repeated {held} more times)", [])  # type: ignore[arg-type]  # our own keys
        if self._agent is not None:
            self._agent.teardown()

    def _write_log_line(self, level: LogLevel, subject: str, details: list[Block]) -> None:
        beat()
        subject = self._masked(subject)
        held = self._storm.admit(f"{level} {subject}", time.monotonic())
        if held is None:
            return
        if held:
            subject += f" (repeated {held} more times)"
        self._emit(level, subject, [(title, text and self._masked(text)) for title, text in details])

    def _emit(self, level: LogLevel, subject: str, details: list[Block]) -> None:
        now = time.time()
        verbosity = self.config.logging_verbosity
        text = entry(now, self.origin, level, subject, details) + "\n"
        if log_level_is_visible(verbosity.console_prints, level):
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.write(text.encode("utf-8", "replace").decode())
                sys.stdout.flush()
        if log_level_is_visible(verbosity.file_archive, level):
            with contextlib.suppress(OSError, ValueError):
                append(self._folder / f"{day_of(now)}.log", text)
        if self.config.all_uplinks() and log_level_is_visible(verbosity.message_sending, level):
            self._send(level, subject, blocks_text(details))

    def _send(self, level: LogLevel, subject: str, body: str) -> None:
        if self._agent is None:
            # A short wait: who logs must go on, and the entry is in the file in any case.
            self._agent = MessagingAgent(deadline_s=2.0)
        message = LogMessageBody(
            level=level, subject=f"{self.origin} - {level} - {subject}"[:1024], body=body[:_MESSAGE_LIMIT]
        )
        try:
            self._agent.add_message(message)
        except Exception as error:
            with contextlib.suppress(OSError, ValueError):
                text = entry(time.time(), self.origin, "ERROR", f"a log message was not stored: {error}", []) + "\n"
                append(self._folder / f"{day_of(time.time())}.log", text)

    def _masked(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return mask(text)


def append(path: Path, text: str) -> None:
    """Append `text` in one write, which the kernel does not mix with those of other processes."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o644)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, flags, 0o644)
    try:
        os.write(descriptor, text.encode("utf-8", "replace"))
    finally:
        os.close(descriptor)
