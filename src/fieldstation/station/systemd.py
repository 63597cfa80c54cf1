"""Tell systemd that we are ready and alive. Protocol: sd_notify(3). Without systemd nothing is sent."""

from __future__ import annotations

import contextlib
import os
import socket
import time


class Systemd:
    """Datagrams to NOTIFY_SOCKET; `alive` sends one each half of the watchdog time."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        watchdog_us = os.environ.get("WATCHDOG_USEC", "")
        self._every_s = int(watchdog_us) / 2e6 if watchdog_us.isdigit() else 0.0
        self._next = 0.0

    def say(self, text: str) -> None:
        """Send e.g. `READY=1`; failures are systemd's to notice."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.sendto(text.encode(), address)

    def alive(self) -> None:
        """Feed the watchdog when it is due."""
        now = time.monotonic()
        if self._every_s and now >= self._next:
            self._next = now + self._every_s
            self.say("WATCHDOG=1")
