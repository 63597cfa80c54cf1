"""Evaluate bitstreams one after another: what the kinds `pulsecount` and `variance` have in common.

Serial protocol of the firmware: raw bytes of one bitstream, no length; text lines back, CR LF at their end.
"""

from __future__ import annotations

import abc
import asyncio
import re
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any, ClassVar

from fieldstation.fleet.driver import NoFirmwareError
from fieldstation.fleet.errors import BadRequestError, FleetError
from fieldstation.fleet.model import Health
from fieldstation.fleet.port import Port
from fieldstation.fleet.states.core import AbstractState
from fieldstation.fleet.states.device import Device, DeviceBrokenError
from fieldstation.fleet.states.flashing import flash
from fieldstation.fleet.states.lifecycle import DEFAULT_BANNER

BITSTREAM_BYTES = 104_090
WAITING = "Waiting for bitstream transfer"
WATCHDOG = "Watchdog timeout"
CANNOT = re.compile(r"cannot measure: ([a-z_]+): (.*)")  # said by a board that knows why, such as the twin
UNDERWAY = ("Bitstream transfer started", "Received bitstream")

ATTEMPTS = 3  # of one bitstream, before it is given up with a stated failure
TROUBLES = 5  # in a row without any result, before the board is broken
QUEUE_LIMIT = 2_000  # bitstreams; about 200 MB
MEMORY = 5_000  # results kept to answer a repeated request without measuring again
GATHER_S = 0.005  # results that come closer together than this travel together

_PENDING = object()


class TroubleError(FleetError):
    """{what}"""


class CannotMeasureError(FleetError):
    """The board cannot measure this circuit: {detail}."""


@dataclass(slots=True)
class Evaluation:
    """One bitstream in the queue."""

    id: str
    batch: str
    data: bytes
    attempts: int = 0


class BitstreamState(AbstractState, abc.ABC):
    """Keeps a queue; flashes `firmware`, says `initialized`, then measures. Trouble means: flash and try again.

    Every accepted evaluation ends in one entry [id, value] of a `results` event; value None is a stated failure, with
    its reason under the id in the event's field `reasons`, and where there is one a word for programs in `codes`.
    """

    blocking = False
    firmware: ClassVar[str]

    def __init__(
        self,
        device: Device,
        flush_interval_seconds: float | None = None,
        flush_at_bitstreams_remaining: int | None = None,
    ) -> None:
        super().__init__(device)
        self._interval_s = _number("flush_interval_seconds", flush_interval_seconds, 10)
        self._flush_at = _number("flush_at_bitstreams_remaining", flush_at_bitstreams_remaining, 25)
        self._queue: deque[Evaluation] = deque()
        self._arrived = asyncio.Event()
        self._known: OrderedDict[str, Any] = OrderedDict()
        self._done: dict[str, list[list[Any]]] = {}
        self._reasons: dict[str, dict[str, str]] = {}
        self._codes: dict[str, dict[str, str]] = {}
        self._flush_timer: asyncio.TimerHandle | None = None
        self._flush_due = float("inf")
        self._troubles = 0

    def start(self) -> None:
        """Say nothing yet: `initialized` follows once the board is flashed and its port is open."""

    @abc.abstractmethod
    def read(self, line: str) -> Any:
        """Return the measured value in this line of the board, or None when it holds none."""

    @AbstractState.register("evaluate", "files", "batch_id")
    def evaluate(self, files: dict[str, Any], batch_id: str) -> None:
        """Queue {id: bitstream} in this order. A repeated id is not measured again; its result is sent again."""
        # Older clients send text: each byte as the cp437 character of that number.
        data = {key: _bytes(value) for key, value in files.items()}
        wrong = {key: problem for key, value in data.items() if (problem := _wrong(key, value)) is not None}
        if not data:
            raise BadRequestError(field="contents.files", problem="it is empty")
        if wrong:
            # Refused as a whole; each id is also ended, since today's clients hear no refusal and would wait for ever.
            for key in data:
                self._finish(key, batch_id, None, wrong.get(key, "another file of the same request is wrong"))
            raise BadRequestError(field="contents.files", problem=next(iter(wrong.values())))
        if len(self._queue) + len(data) > QUEUE_LIMIT:
            for key in data:
                self._finish(key, batch_id, None, "the device's queue is full")
            raise BadRequestError(field="contents.files", problem=f"the queue of {self.serial} is full ({QUEUE_LIMIT})")
        for key, bitstream in data.items():
            self._accept(Evaluation(key, batch_id, bitstream))

    def _accept(self, evaluation: Evaluation) -> None:
        known = self._known.get(evaluation.id)
        if known is None:
            self._known[evaluation.id] = (_PENDING, None)
            self._queue.append(evaluation)
            self._arrived.set()
        elif known[0] is not _PENDING:
            self._finish(evaluation.id, evaluation.batch, *known, remember=False)

    async def run(self) -> None:
        """Measure until the device is taken away; a board that gives no result at all any more is broken."""
        while True:
            try:
                await flash(self.device, self.firmware)
                async with self.device.port() as port:
                    await self._settle(port)
                    self.device_event_sender.sendDeviceInitialized()
                    await self._work(port)
            except (FleetError, OSError, TimeoutError) as error:
                if isinstance(error, DeviceBrokenError | NoFirmwareError):
                    raise
                self._trouble(error)

    async def _settle(self, port: Port) -> None:
        limit = self.device.driver.timing.settle_s
        if limit <= 0:
            return
        try:
            async with asyncio.timeout(limit):
                while WAITING not in (line := await port.line()):
                    _refuse_default(line)
        except TimeoutError:
            self.logger.debug("the board did not say that it waits; going on")

    async def _work(self, port: Port) -> None:
        port.on_gone = self._arrived.set
        while True:
            while not self._queue:
                self._arrived.clear()
                port.drain()  # what an idle board says means nothing; that it is gone does
                await self._arrived.wait()
            evaluation = self._queue[0]
            evaluation.attempts += 1
            value, reason, code = None, None, ""
            try:
                value = await self._measure(port, evaluation.data)
            except CannotMeasureError as error:  # trying again would not help, and the board is well
                reason, code = str(error), str(error.fields["why"])
            self._queue.popleft()
            self._troubles = 0
            self._finish(evaluation.id, evaluation.batch, value, reason, code)
            async with asyncio.timeout(self.device.driver.timing.answer_s):
                while WAITING not in await port.line():
                    pass

    async def _measure(self, port: Port, bitstream: bytes) -> Any:
        timing = self.device.driver.timing
        try:
            async with asyncio.timeout(timing.transfer_s):
                await port.write(bitstream)
        except TimeoutError as error:
            raise TroubleError(what=f"the board took no more bytes for {timing.transfer_s:g} s") from error
        underway = False
        try:
            async with asyncio.timeout(timing.answer_s):
                while True:
                    line = await port.line()
                    if (value := self.read(line)) is not None:
                        return value
                    if (why := CANNOT.search(line)) is not None:
                        raise CannotMeasureError(why=why[1], detail=why[2].strip().rstrip("."))
                    if line.startswith(UNDERWAY):
                        underway = True
                    elif WATCHDOG in line:
                        raise TroubleError(what=f"the board did not get the whole bitstream ({line.strip()})")
                    elif underway and WAITING in line:
                        raise TroubleError(what="the board took the bitstream and gave no readable result")
                    else:
                        _refuse_default(line)
        except TimeoutError as error:
            raise TroubleError(what=f"the board gave no result within {timing.answer_s:g} s") from error

    def _trouble(self, error: Exception) -> None:
        self.logger.warning("flashing again: %s", error)
        self.device.health, self.device.reason = Health.DEGRADED, str(error)
        self.device.care.note("reflash for its holder", str(error))
        self._troubles += 1
        if self._queue and self._queue[0].attempts >= ATTEMPTS:
            failed = self._queue.popleft()
            self._finish(failed.id, failed.batch, None, f"given up after {ATTEMPTS} tries: {error}")
        if self._troubles >= TROUBLES:
            reason = f"{TROUBLES} tries in a row gave no result; the last: {error}"
            raise DeviceBrokenError(serial=self.serial, reason=reason)

    def give_up(self, reason: str) -> None:
        """End what is left with the reason why."""
        while self._queue:
            left = self._queue.popleft()
            self._finish(left.id, left.batch, None, reason)
        self.flush()

    def _finish(
        self, key: str, batch: str, value: Any, reason: str | None = None, code: str = "", *, remember: bool = True
    ) -> None:
        if remember and (reason is None or key in self._known):
            self._known[key] = (value, reason, code)
            while len(self._known) > MEMORY:
                self._known.popitem(last=False)
        self._done.setdefault(batch, []).append([key, value])
        if reason is not None:
            self._reasons.setdefault(batch, {})[key] = reason
        if code:
            self._codes.setdefault(batch, {})[key] = code
        few_left = len(self._queue) <= self._flush_at
        if few_left or self._interval_s > 0:
            self._flush_within(GATHER_S if few_left else self._interval_s)

    def _flush_within(self, delay_s: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + delay_s
        if self._flush_timer is not None:
            if self._flush_due <= due:
                return
            self._flush_timer.cancel()
        self._flush_due = due
        self._flush_timer = loop.call_later(delay_s, self.flush)

    def flush(self) -> None:
        """Send what is finished, as one message with one item for each batch."""
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        done, self._done = self._done, {}
        told = {"reasons": self._reasons, "codes": self._codes}
        self._reasons, self._codes = {}, {}
        if done:
            self.device_event_sender.sendDeviceEvents(
                ("results", {"batch_id": batch, "results": results}
                 | {name: by_batch[batch] for name, by_batch in told.items() if batch in by_batch})
                for batch, results in done.items()
            )  # fmt: skip

    def reboot(self) -> None:
        """Flash again and go on with the queue, the bitstream in progress included."""
        self.restart()

    def handleExit(self) -> None:
        """Deliver what is finished."""
        self.flush()


def _bytes(value: object) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode("cp437")
        except UnicodeEncodeError:
            return b""
    return value if isinstance(value, bytes) else b""


def _wrong(key: object, value: bytes) -> str | None:
    if not isinstance(key, str) or not key:
        return f"{key!r} must be an id"
    if len(value) != BITSTREAM_BYTES:
        return f"the bitstream {key} has {len(value)} bytes; a board takes exactly {BITSTREAM_BYTES}"
    return None


def _refuse_default(line: str) -> None:
    if DEFAULT_BANNER in line:
        raise TroubleError(what="the board came back with the default firmware")


def _number(name: str, value: object, default: float) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise BadRequestError(field=f"args.{name}", problem=f"it must be a number from 0 on, not {value!r}")
    return value
