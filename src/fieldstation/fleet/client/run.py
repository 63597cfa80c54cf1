"""One evaluate call: sends within the windows, collects answers, asks again after an outage, gives up with a reason."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol
from uuid import uuid4

from fieldstation.core.errors import FieldstationError
from fieldstation.fleet.client import packing
from fieldstation.fleet.client.evaluation import Evaluation, EvaluationFailed, Result
from fieldstation.fleet.client.line import LineDownError
from fieldstation.fleet.client.window import Ask, BatchFactory, Window, by_message
from fieldstation.fleet.errors import ControlUnreachableError, NotLeaderError, WorkerUnreachableError

log = logging.getLogger(__name__)

# A worker that just came back may not have seen its boards again yet.
TRY_AGAIN = frozenset({"unknown_serial", "device_busy", "worker_unreachable"})
TRY_AGAIN_S = 0.5


class Devices(Protocol):
    """What a run needs of the client that it belongs to."""

    def worker_of(self, serial: str) -> str:
        """Return the address of the worker that hosts a device we hold."""

    def is_up(self, url: str) -> bool:
        """Tell whether the line to a worker stands."""

    async def send(self, url: str, message: bytes, callback: Callable[..., None] | None = None) -> None:
        """Send to a worker."""

    async def recover(self, serial: str, timeout_s: float) -> bool:
        """Reboot a device; tell whether it is ready again. WorkerUnreachableError when nobody could be asked."""

    async def abandon(self, serial: str, reason: str) -> None:
        """Give a device that does not answer back to the fleet."""


class Run:
    """One call's state. Every (device, evaluation) ends in exactly one Result."""

    def __init__(
        self,
        devices: Devices,
        evaluations: Sequence[Evaluation],
        batches: BatchFactory,
        files: packing.Bitstreams,
        *,
        result_timeout_s: float,
        outage_timeout_s: float,
        result: Callable[..., Result] = Result,
    ) -> None:
        self.batch_id = str(uuid4())
        self._devices = devices
        self._evaluations = evaluations
        self._files = files
        self._result = result
        self._result_timeout_s = result_timeout_s
        self._outage_timeout_s = outage_timeout_s
        self._window = Window(batches)
        self._clock = asyncio.get_running_loop().time
        self._started = self._clock()
        self._sent_at: dict[Ask, float] = {}
        self._done: list[Result] = []
        self._arrived = asyncio.Event()
        self._wake = asyncio.Event()
        self._again: set[str] = set()  # devices whose unanswered evaluations are to be sent again
        self._rebooted: set[str] = set()  # devices that were rebooted and have not answered since
        self._rebooting: set[str] = set()
        self._cut_off: set[str] = set()  # devices that could not be rebooted, because nobody reaches their worker
        self._worker_of: dict[str, str] = {}
        self._packed: dict[int, tuple[bytes, int]] = {}  # contents, and how many devices have still to get them
        for index, evaluation in enumerate(evaluations):
            wire_id = evaluation.wire_id()
            for serial in sorted(evaluation.serials):
                self._worker_of[serial] = devices.worker_of(serial)
                self._window.add(serial, index, wire_id)

    async def results(self) -> AsyncIterator[list[Result]]:
        """Yield what has arrived, one result or many at a time, until every evaluation has its result."""
        while True:
            if self._done:
                ready, self._done = self._done, []
                yield ready
            if self._done:
                continue
            if not len(self._window):
                return
            self._arrived.clear()
            await self._arrived.wait()

    # What the client tells the run; nothing here waits.

    def answered(
        self, serial: str, pairs: Iterable[Any], reasons: Mapping[str, Any], codes: Mapping[str, Any] | None = None
    ) -> None:
        """Take `[id, value]` pairs of a `results` event; repeats and strangers are dropped.

        The value None is a failure that the worker states; `reasons` says why, by id, and `codes` in a word.
        """
        now = self._clock()
        for pair in pairs:
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                continue
            ask = self._window.answered(serial, str(pair[0]), now)
            if ask is not None:
                self._rebooted.discard(serial)
                self._cut_off.discard(serial)
                if pair[1] is None:
                    self._fail(
                        ask,
                        str(reasons.get(ask.wire_id, "the worker got no value")),
                        str((codes or {}).get(ask.wire_id, "")),
                    )
                else:
                    self._finish(ask, pair[1], now)
        self._wake.set()

    def lost(self, serial: str, reason: str) -> None:
        """A device is gone: all that it did not answer fails with the reason."""
        for ask in self._window.give_up(serial):
            self._fail(ask, reason)
        self._wake.set()

    def line_is_back(self, url: str) -> None:
        """The worker may have been restarted: what it did not answer is sent again."""
        for serial, where in self._worker_of.items():
            if where == url:
                self._window.restart(serial, self._clock())
                self._again.add(serial)
                self._cut_off.discard(serial)
        self._wake.set()

    # The sending side: one task.

    async def pump(self, spawn: Callable[..., Any]) -> None:
        """Send and watch until all is answered."""
        while len(self._window):
            self._wake.clear()
            again, self._again = self._again, set()
            await self._send(self._window.outstanding(again))
            await self._send(self._window.next(self._clock()))
            for serial in self._overdue():
                self._rebooting.add(serial)
                spawn(self._rescue(serial), f"rescue of {serial}")
            await self._sleep()

    async def _sleep(self) -> None:
        check = self._window.next_check(self._result_timeout_s)
        wait_s = self._result_timeout_s if check is None else check - self._clock()
        try:
            # At least a moment: a device whose line is down stays overdue without anything to do about it.
            async with asyncio.timeout(max(wait_s, 0.2)):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _send(self, asks: Sequence[Ask]) -> None:
        for (url, index), group in by_message(asks, self._worker_of).items():
            wire_id = group[0].wire_id
            serials = [ask.serial for ask in group]
            evaluation = self._evaluations[index]
            try:
                contents = await self._contents(index, wire_id, len(group))
                # Taken before the message leaves: the answer may be faster than we are.
                now = self._clock()
                for ask in group:
                    self._sent_at[ask] = now
                message = packing.request(serials, evaluation.event, contents)
                await self._devices.send(url, message, lambda *a, s=serials, w=wire_id: self._acknowledged(s, w, a))
            except LineDownError:
                continue  # stays outstanding; sent again when the line is back
            except FieldstationError as error:
                self._refuse(serials, wire_id, str(error))
            await asyncio.sleep(0)  # the socket and the readers get their turn between two messages

    async def _contents(self, index: int, wire_id: str, takers: int) -> bytes:
        evaluation = self._evaluations[index]
        if index in self._packed:
            contents, missing = self._packed.pop(index)
        else:
            missing = len(evaluation.serials)
            contents = await packing.contents_of(evaluation, wire_id, self.batch_id, self._files)
        if missing > takers:
            self._packed[index] = (contents, missing - takers)
        return contents

    def _acknowledged(self, serials: list[str], wire_id: str, answer: tuple[Any, ...]) -> None:
        told = answer[0] if answer and isinstance(answer[0], Mapping) else {}
        refused = dict.fromkeys(serials, told["error"]) if "error" in told else told.get("refused") or {}
        for serial, why in refused.items():
            why = why if isinstance(why, Mapping) else {"message": why}
            if why.get("code", why.get("reason")) in TRY_AGAIN:
                asyncio.get_running_loop().call_later(TRY_AGAIN_S, self._send_again, [serial])
            else:
                self._refuse([serial], wire_id, str(why.get("message")))

    def _send_again(self, serials: list[str]) -> None:
        self._again.update(serials)
        self._wake.set()

    def _refuse(self, serials: Iterable[str], wire_id: str, reason: str) -> None:
        for serial in serials:
            ask = self._window.answered(serial, wire_id, self._clock())
            if ask is not None:
                self._fail(ask, reason)
        self._wake.set()

    # Devices that do not answer.

    def _overdue(self) -> list[str]:
        now = self._clock()
        overdue = []
        for serial in self._window.silent(now, self._result_timeout_s):
            if serial in self._rebooting:
                continue
            # A board cannot be blamed for a line that is down; the outage has its own, longer, limit.
            limit_s = 0.0 if self._reaches(serial) else self._outage_timeout_s
            if serial in self._window.silent(now, max(limit_s, self._result_timeout_s)):
                overdue.append(serial)
        return overdue

    async def _rescue(self, serial: str) -> None:
        try:
            if self._reaches(serial) and serial not in self._rebooted:
                log.warning("%s has not answered for %g s and is rebooted", serial, self._result_timeout_s)
                if await self._recover(serial):
                    self._rebooted.add(serial)
                    self._window.restart(serial, self._clock())
                    self._send_again([serial])
                    return
                if not self._reaches(serial):
                    return  # an outage that was not noticed before, which is not the board's fault
            reason = f"{serial} did not answer within {self._result_timeout_s:g} s, nor after a reboot"
            self.lost(serial, reason)
            await self._devices.abandon(serial, reason)
        finally:
            self._rebooting.discard(serial)
            self._wake.set()

    def _reaches(self, serial: str) -> bool:
        return self._devices.is_up(self._worker_of[serial]) and serial not in self._cut_off

    async def _recover(self, serial: str) -> bool:
        try:
            return await self._devices.recover(serial, self._result_timeout_s)
        except (ControlUnreachableError, WorkerUnreachableError, NotLeaderError) as error:
            log.warning("%s cannot be rebooted now: %s", serial, error)
            self._cut_off.add(serial)
        except FieldstationError as error:
            log.warning("%s could not be rebooted: %s", serial, error)
        return False

    def _finish(self, ask: Ask, raw: Any, now: float) -> None:
        evaluation = self._evaluations[ask.index]
        try:
            convert = getattr(evaluation, "value_of", None)
            value = raw if convert is None else convert(raw)
        except (TypeError, ValueError):
            self._fail(ask, f"the worker sent {raw!r:.60}, which is no value of this kind")
            return
        sent = self._sent_at.pop(ask, now)
        self._done.append(self._result(ask.serial, evaluation, value, "", sent - self._started, now - sent))
        self._arrived.set()

    def _fail(self, ask: Ask, reason: str, code: str = "") -> None:
        now = self._clock()
        sent = self._sent_at.pop(ask, now)
        evaluation = self._evaluations[ask.index]
        log.warning("no value for %r on %s: %s", evaluation, ask.serial, reason)
        self._done.append(
            self._result(ask.serial, evaluation, EvaluationFailed, reason, sent - self._started, now - sent, code)
        )
        self._arrived.set()
