"""The documented form of log entries, and the limit on a storm of them. Pure functions of time and text."""

from __future__ import annotations

import datetime
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

Block = tuple[str, str | None]
WIDTH = 40


def stamp(now: float) -> str:
    """Return `2021-08-22 16:00:00.000 UTC+2`: local time, and the offset it has at that moment."""
    local = datetime.datetime.fromtimestamp(now).astimezone()
    offset = local.utcoffset() or datetime.timedelta()
    hours = offset.total_seconds() / 3600
    return f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03d} UTC{hours:+g}"


def blocks_text(details: Sequence[Block]) -> str:
    """Return the detail blocks, each under its ruled title, closed by a rule; empty when there is nothing to show."""
    shown = [(title, text.strip("\n")) for title, text in details if text is not None]
    if not shown:
        return ""
    return "\n".join(f"{f'--- {title} '.ljust(WIDTH, '-')}\n{text}" for title, text in shown) + "\n" + "-" * WIDTH


def entry(now: float, origin: str, level: str, subject: str, details: Sequence[Block]) -> str:
    """Return the whole entry, without a newline at the end."""
    blocks = blocks_text(details)
    return f"{stamp(now)} - {origin} - {level} - {subject}" + (f"\n{blocks}" if blocks else "")


def exception_blocks(error: BaseException, details: str | None) -> list[Block]:
    """Return the blocks of an exception: `exception details` (also what a failed command said) and `traceback`."""
    import subprocess  # here, since most procedures never fail: a quarter of a megabyte

    known = [details] if details else []
    if isinstance(error, subprocess.CalledProcessError):
        for name, output in (("stderr", error.stderr), ("stdout", error.stdout)):
            if output:
                text = output.decode("utf-8", "replace") if isinstance(output, bytes) else str(output)
                known.append(f"{name}: {text.strip()}")
    trace = "".join(traceback.format_exception(error)).strip()
    return [("exception details", "\n".join(known) or None), ("traceback", trace)]


@dataclass(slots=True)
class _Repeat:
    since: float
    shown: int = 0
    held: int = 0


class StormLimit:
    """Shows the same entry a few times a minute and counts the rest; the count is told with the next one shown."""

    def __init__(self, burst: int = 5, window_s: float = 60.0, remembered: int = 200) -> None:
        self._burst = burst
        self._window_s = window_s
        self._remembered = remembered
        self._seen: dict[str, _Repeat] = {}

    def admit(self, key: str, now: float) -> int | None:
        """Return how many were held back since the last one shown, or None when this one is held back too."""
        repeat = self._seen.get(key)
        if repeat is None or not 0 <= now - repeat.since < self._window_s:
            held = repeat.held if repeat else 0
            self._seen.pop(key, None)
            self._seen[key] = _Repeat(now, shown=1)
            while len(self._seen) > self._remembered:
                del self._seen[next(iter(self._seen))]
            return held
        if repeat.shown < self._burst:
            repeat.shown += 1
            return 0
        repeat.held += 1
        return None

    def flush(self) -> dict[str, int]:
        """Return what was held back and not yet told, by entry, and forget it."""
        held = {key: repeat.held for key, repeat in self._seen.items() if repeat.held}
        self._seen.clear()
        return held
