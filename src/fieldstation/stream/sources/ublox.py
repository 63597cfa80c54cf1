"""A u-blox ZED-F9T on a serial line: configured, verified, and read in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fieldstation.core.plugins import require
from fieldstation.stream.errors import ReceiverConfigError, ReceiverError
from fieldstation.stream.ublox_config import MAX_KEYS, ReceiverConfig, Settings

log = logging.getLogger(__name__)

REPLY_S = 2.0


@dataclass(frozen=True, slots=True)
class UbxMessage:
    """A message of the receiver: identity such as TIM-TP, its public fields, the complete frame, Unix nanoseconds."""

    identity: str
    fields: dict[str, Any]
    payload: bytes
    received_ns: int


class Receiver:
    """One open receiver. `on_message` gets every message, in the event loop's thread."""

    def __init__(self, config: ReceiverConfig, on_message: Callable[[UbxMessage], None]) -> None:
        self._config = config
        self._on_message = on_message
        self._ubx: Any = require("pyubx2", extra="ublox", feature="A u-blox receiver")
        self._serial: Any = None
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._waiting: list[tuple[Callable[[UbxMessage], bool], asyncio.Future[UbxMessage]]] = []
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = self._loop.create_future()

    async def open(self) -> None:
        """Open the line, check that it is the right chip, write all settings and read them back."""
        serial: Any = require("serial", extra="ublox", feature="A u-blox receiver")
        try:
            self._serial = await asyncio.to_thread(
                serial.Serial, self._config.device, self._config.baud, timeout=0.2, write_timeout=2
            )
        except (OSError, ValueError) as error:
            raise ReceiverError(device=self._config.device, problem=f"it cannot be opened: {error}") from error
        self._thread = threading.Thread(target=self._read, name="ublox", daemon=True)
        self._thread.start()
        await self._check_chip()
        await self._apply()

    async def _check_chip(self) -> None:
        answer = await self._ask(self._message("SEC", "SEC-UNIQID"), "SEC-UNIQID")
        number = int(answer.fields["uniqueId"])
        # Tools print the five bytes in either order.
        names = {f"{number:010x}", number.to_bytes(5, "little").hex()}
        if self._config.uid and self._config.uid not in names:
            problem = f"{self._config.uid} was expected at {self._config.device}, but the chip is {number:010x}"
            raise ReceiverConfigError(field="f9t_uid", problem=problem)
        version = await self._ask(self._message("MON", "MON-VER"), "MON-VER")
        if b"MOD=ZED-F9T" not in version.payload:
            raise ReceiverError(device=self._config.device, problem="it is no ZED-F9T")

    async def _apply(self) -> None:
        for batch in _batches(self._config.settings):
            try:
                message = self._ubx.UBXMessage.config_set(self._config.layers, 0, batch)
            except Exception as error:  # the library raises its own kinds for keys and values it does not know
                raise ReceiverConfigError(field="cfg_key_settings", problem=error) from error
            answer = await self._ask(message, "ACK-ACK", "ACK-NAK")
            if answer.identity == "ACK-NAK":
                keys = ", ".join(key for key, _ in batch)
                raise ReceiverError(device=self._config.device, problem=f"it refused the settings {keys}")
        for batch in _batches(self._config.settings):
            message = self._ubx.UBXMessage.config_poll(self._config.verify_layer, 0, [key for key, _ in batch])
            answer = await self._ask(message, "CFG-VALGET", "ACK-NAK")
            for key, value in batch:
                if answer.fields.get(key) != value:
                    problem = f"it holds {key} = {answer.fields.get(key)!r} instead of {value!r}"
                    raise ReceiverError(device=self._config.device, problem=problem)

    def _message(self, group: str, identity: str) -> Any:
        return self._ubx.UBXMessage(group, identity, self._ubx.POLL)

    async def _ask(self, message: Any, *identities: str) -> UbxMessage:
        future: asyncio.Future[UbxMessage] = self._loop.create_future()
        entry = (lambda reply: reply.identity in identities, future)
        self._waiting.append(entry)
        try:
            await asyncio.to_thread(self._serial.write, message.serialize())
            async with asyncio.timeout(REPLY_S):
                return await future
        except TimeoutError as error:
            problem = f"it did not answer {message.identity} within {REPLY_S:g} s"
            raise ReceiverError(device=self._config.device, problem=problem) from error
        except OSError as error:
            raise ReceiverError(device=self._config.device, problem=error) from error
        finally:
            with contextlib.suppress(ValueError):
                self._waiting.remove(entry)

    def _read(self) -> None:
        reader = self._ubx.UBXReader(self._serial, protfilter=self._ubx.UBX_PROTOCOL, quitonerror=0)
        problem = "closed"
        try:
            while not self._stopping:
                frame, parsed = reader.read()
                if parsed is None or isinstance(parsed, str):
                    continue
                fields = {k: v for k, v in vars(parsed).items() if not k.startswith("_")}
                message = UbxMessage(parsed.identity, fields, bytes(frame), time.time_ns())
                self._loop.call_soon_threadsafe(self._arrived, message)
        except Exception as error:
            problem = str(error) or type(error).__name__
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._ended, problem)

    def _arrived(self, message: UbxMessage) -> None:
        for matches, future in self._waiting:
            if not future.done() and matches(message):
                future.set_result(message)
        self._on_message(message)

    def _ended(self, problem: str) -> None:
        if not self.lost.done():
            self.lost.set_result(problem)

    async def close(self) -> None:
        """Stop reading and close the line."""
        self._stopping = True
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, 2.0)
        if self._serial is not None:
            with contextlib.suppress(OSError):
                self._serial.close()


def _batches(settings: Settings) -> Iterator[Settings]:
    for at in range(0, len(settings), MAX_KEYS):
        yield settings[at : at + MAX_KEYS]
