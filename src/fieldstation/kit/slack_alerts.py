"""Errors to a Slack channel that never block the program and never flood the channel."""

from __future__ import annotations

import atexit
import logging
import queue
import re
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable

from fieldstation.core.log import mask
from fieldstation.kit.environment import setting
from fieldstation.kit.slack_api import MAX_TEXT, SlackApi, SlackError, SlackRateLimitedError, escape

_NUMBERS = re.compile(r"0x[0-9a-fA-F]+|\d+(\.\d+)?")


class SlackLoguruSink:
    """A Loguru sink, also usable as `sink(text)`. Lines wait in a bounded queue for one thread that posts them.

    Lines that differ in their numbers only are one line with a count. At most one post per `every_s`; Slack's own
    rate limit is kept. What does not fit is counted in the next post. Secrets are masked.
    """

    def __init__(
        self,
        token: str,
        channel: str,
        *,
        every_s: float = 10.0,
        capacity: int = 1000,
        api: SlackApi | None = None,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self.dropped = 0
        self._channel = channel
        self._every_s = every_s
        self._api = api or SlackApi(token)
        self._waiting: queue.Queue[str] = queue.Queue(capacity)
        self._stopping = threading.Event()
        self._sleep = sleep or (lambda seconds: self._stopping.wait(seconds))
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._complained = False

    def __call__(self, message: str) -> None:
        """Take one line; returns at once."""
        try:
            self._waiting.put_nowait(str(message))
        except queue.Full:
            self.dropped += 1
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._work, name="slack-alerts", daemon=True)
                    self._thread.start()
                    atexit.register(self.close, 3.0)

    def close(self, timeout_s: float = 3.0) -> None:
        """Post what waits, if that works within the time, and end."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _work(self) -> None:
        while not (self._stopping.is_set() and self._waiting.empty()):
            lines = self._collect()
            if not lines:
                continue
            self._post(compose(lines, self._take_dropped()))
            if not self._stopping.is_set():
                self._sleep(self._every_s)

    def _collect(self) -> list[str]:
        lines = []
        try:
            lines.append(self._waiting.get(timeout=0.2))
            while True:
                lines.append(self._waiting.get_nowait())
        except queue.Empty:
            return lines

    def _take_dropped(self) -> int:
        dropped, self.dropped = self.dropped, 0
        return dropped

    def _post(self, text: str) -> None:
        pause = 1.0
        while True:
            try:
                self._api.call("chat.postMessage", patience_s=0, channel=self._channel, text=text)
            except SlackRateLimitedError as error:
                pause = float(str(error.fields["retry_after_s"]))
            except SlackError as error:
                # Said once, and not through a logger: that would come back here.
                if not self._complained:
                    sys.stderr.write(f"{error} The error alert was not sent.\n")
                self._complained = True
                if "code" in error.fields:
                    return  # Slack's no stays a no; an unreachable Slack is tried again
                pause = min(pause * 2, 60.0)
            else:
                self._complained = False
                return
            if self._stopping.is_set():
                return
            self._sleep(pause)


def compose(lines: list[str], dropped: int = 0) -> str:
    """Return the text of one post: equal lines once with their number, secrets masked, mark-up escaped, bounded."""
    groups: OrderedDict[str, list[str]] = OrderedDict()
    for line in lines:
        groups.setdefault(_NUMBERS.sub("#", line.split("\n", 1)[0]), []).append(line)
    parts = []
    for alike in groups.values():
        text = escape(mask(alike[0].rstrip()))
        parts.append(text[:MAX_TEXT] + (f"\n(and {len(alike) - 1} more like this)" if len(alike) > 1 else ""))
    if dropped:
        parts.append(f"({dropped} more alerts were dropped)")
    text = "\n".join(parts)
    return text if len(text) <= 10 * MAX_TEXT else text[: 10 * MAX_TEXT] + "\n(cut)"


def get_slack_sink() -> SlackLoguruSink | None:
    """Return a sink when SLACK_BOT_TOKEN and SLACK_LOGGING_CHANNEL are set, else None."""
    token, channel = setting("SLACK_BOT_TOKEN"), setting("SLACK_LOGGING_CHANNEL")
    return SlackLoguruSink(token, channel) if token and channel else None


class SlackHandler(logging.Handler):
    """The same for the standard library: `logging.getLogger().addHandler(SlackHandler(sink))` sends ERROR and above."""

    def __init__(self, sink: SlackLoguruSink, level: int = logging.ERROR) -> None:
        super().__init__(level)
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        """Queue one record."""
        try:
            self._sink(f"{record.levelname} {record.name} - {self.format(record)}")
        except Exception:
            self.handleError(record)
