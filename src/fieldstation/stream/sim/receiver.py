"""A simulated ZED-F9T: it speaks UBX over a pseudo-terminal, keeps its settings and sends time messages."""

from __future__ import annotations

import os
import select
import threading
import time
import tty
from typing import Any

from fieldstation.core.plugins import require


class SimulatedF9t:
    """`device` is the path that a server opens. Faults: `deaf` answers nothing, `refuse` keys are not acknowledged,
    `forget` keys are acknowledged but not kept, `model` names another chip."""

    def __init__(
        self,
        uid: int = 0xAABBCCDDEE,
        *,
        rate_hz: float = 10.0,
        model: str = "ZED-F9T",
        deaf: bool = False,
        refuse: frozenset[str] = frozenset(),
        forget: frozenset[str] = frozenset(),
    ) -> None:
        self._ubx: Any = require("pyubx2", extra="ublox", feature="The simulated receiver")
        self.settings: dict[str, Any] = {}
        self.set_messages: list[list[str]] = []  # the keys of each UBX-CFG-VALSET, in order
        self._uid, self._model, self._deaf, self._refuse, self._forget = uid, model, deaf, refuse, forget
        self._pause_s = 1 / rate_hz
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.device = os.ttyname(self._slave)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="simulated-f9t", daemon=True)
        self._thread.start()

    def unplug(self) -> None:
        """Pull the cable."""
        self._stopping.set()
        self._thread.join(2)
        for descriptor in (self._master, self._slave):
            if descriptor >= 0:
                os.close(descriptor)
        self._master = self._slave = -1

    close = unplug

    def __enter__(self) -> SimulatedF9t:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _work(self) -> None:
        pending = b""
        next_pulse = time.monotonic()
        while not self._stopping.is_set():
            readable, _, _ = select.select([self._master], [], [], max(0.0, next_pulse - time.monotonic()))
            if readable:
                pending = self._answer(pending + os.read(self._master, 4096))
            if time.monotonic() >= next_pulse:
                next_pulse += self._pause_s
                self._pulse()

    def _pulse(self) -> None:
        now = time.gmtime()
        week_ms = int(time.time() * 1000) % 604_800_000
        self._send("TIM", "TIM-TP", towMS=week_ms, week=2300)
        self._send(
            "NAV", "NAV-TIMEUTC", year=now.tm_year, month=now.tm_mon, day=now.tm_mday, hour=now.tm_hour,
            min=now.tm_min, sec=now.tm_sec, validUTC=1,
        )  # fmt: skip

    def _send(self, group: str, identity: str, **fields: Any) -> None:
        self._write(self._ubx.UBXMessage(group, identity, self._ubx.GET, **fields).serialize())

    def _write(self, data: bytes) -> None:
        # Nobody reads: a real receiver's line loses the bytes, it does not wait.
        _, writable, _ = select.select([], [self._master], [], 0)
        if writable:
            os.write(self._master, data)

    def _answer(self, data: bytes) -> bytes:
        while (at := data.find(b"\xb5b")) >= 0 and len(data) >= at + 8:
            end = at + 8 + int.from_bytes(data[at + 4 : at + 6], "little")
            if len(data) < end:
                return data[at:]
            if not self._deaf:
                self._handle(data[at:end])
            data = data[end:]
        return data[-1:] if data.endswith(b"\xb5") else data[at:] if at >= 0 else b""

    def _handle(self, frame: bytes) -> None:
        kind = (frame[2], frame[3])
        if kind == (0x27, 0x03):
            self._send("SEC", "SEC-UNIQID", version=1, uniqueId=self._uid)
        elif kind == (0x0A, 0x04):
            parts = (b"EXT TIM 2.20".ljust(30, b"\0"), b"00190000".ljust(10, b"\0"))
            extension = f"MOD={self._model}".encode().ljust(30, b"\0")
            self._write(
                self._ubx.UBXMessage("MON", "MON-VER", self._ubx.GET, payload=b"".join(parts) + extension).serialize()
            )
        elif kind == (0x06, 0x8A):
            self._set(self._ubx.UBXReader.parse(frame, msgmode=self._ubx.SET))
        elif kind == (0x06, 0x8B):
            self._get(self._ubx.UBXReader.parse(frame, msgmode=self._ubx.POLL))

    def _set(self, message: Any) -> None:
        values = {k: v for k, v in vars(message).items() if k.startswith("CFG_")}
        self.set_messages.append(list(values))
        if self._refuse & set(values):
            self._send("ACK", "ACK-NAK", clsID=6, msgID=0x8A)
            return
        self.settings |= {k: v for k, v in values.items() if k not in self._forget}
        self._send("ACK", "ACK-ACK", clsID=6, msgID=0x8A)

    def _get(self, message: Any) -> None:
        body = bytes([1, message.layer, 0, 0])
        for name, number in vars(message).items():
            if not name.startswith("keys_"):
                continue
            key, kind = self._ubx.cfgkey2name(number)
            body += number.to_bytes(4, "little") + self._ubx.val2bytes(self.settings.get(key, 0), kind)
        self._write(self._ubx.UBXMessage("CFG", "CFG-VALGET", self._ubx.GET, payload=body).serialize())
