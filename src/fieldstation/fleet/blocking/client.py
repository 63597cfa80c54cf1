"""What all documented clients can do, whatever their devices are reserved for."""

from __future__ import annotations

import atexit
import logging
import signal
import sys
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, Literal, Self, TypeVar

from fieldstation.core.blocking import portal
from fieldstation.core.errors import FieldstationError
from fieldstation.core.security import own_token
from fieldstation.fleet.blocking.dispatch import Dispatcher
from fieldstation.fleet.blocking.handlers import LoggerEventHandler
from fieldstation.fleet.client.evaluation import BitstreamResult, Evaluation, FileEvaluation, Result
from fieldstation.fleet.client.session import FleetClient
from fieldstation.fleet.client.window import BalancedBatchFactory, BatchFactory
from fieldstation.fleet.errors import ControlUnreachableError, NotEnoughDevicesError, ReservationFailedError

T = TypeVar("T")


class BaseClient(Dispatcher):
    """Reserves devices under `client_name` and talks to them; call it from any thread, or as a context manager.

    `url` is the control server, or several separated by commas; `http://name:token@host:8080` carries a token, which
    otherwise is taken from FIELDSTATION_TOKEN. The constructor connects, and raises ControlUnreachableError when
    nobody answers. Reservations are extended by themselves and ended when the interpreter ends. Methods that talk to
    the control server return False when it refuses or cannot be reached, as documented, and log why.
    """

    kind: ClassVar[str] = ""
    evaluation: ClassVar[type[FileEvaluation]] = FileEvaluation

    def __init__(
        self,
        url: str,
        client_name: str,
        logger: logging.Logger | None = None,
        log_events: bool = False,
        *,
        token: str | None = None,
    ) -> None:
        super().__init__((), logger)
        self.client_name = client_name
        self._closed = False
        self._fleet = FleetClient(url, client_name, token=token or own_token())
        portal.call(self._fleet.start())
        self._fleet.events.subscribe(self.later)
        if log_events:
            self.addEventHandler(LoggerEventHandler(self, self.logger))
        atexit.register(self.stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _try(self, call: Coroutine[Any, Any, T], what: str) -> T | Literal[False]:
        if self._closed:
            call.close()
            self.logger.error("%s: this client is stopped.", what)
            return False
        try:
            return portal.call(call)
        except FieldstationError as error:
            self.logger.error("%s: %s", what, error)
            return False

    # Reservations

    def _reserve(
        self, amount: int, wait_for_available: bool, available_timeout: float, kind: str, args: Mapping[str, Any]
    ) -> list[str] | Literal[False]:
        wait_s = available_timeout if wait_for_available else 0.0
        call = self._fleet.reserve(amount, kind=kind, args=args, wait_s=wait_s)
        return self._reserve_or_raise(call)

    def _reserve_specific(
        self, serials: str | Iterable[str], kind: str, args: Mapping[str, Any]
    ) -> list[str] | Literal[False]:
        return self._reserve_or_raise(self._fleet.reserve_serials(serials, kind=kind, args=args))

    def _reserve_or_raise(self, call: Coroutine[Any, Any, list[str]]) -> list[str] | Literal[False]:
        try:
            return portal.call(call)
        except (NotEnoughDevicesError, ControlUnreachableError, ReservationFailedError):
            raise
        except FieldstationError as error:
            self.logger.error("reserve: %s", error)
            return False

    def reserveKind(
        self,
        amount: int,
        kind: str,
        args: Mapping[str, Any] | None = None,
        wait_for_available: bool = False,
        available_timeout: float = 60,
    ) -> list[str] | Literal[False]:
        """Reserve devices for any kind, such as a state of your own; `args` are what `@reservable` names."""
        return self._reserve(amount, wait_for_available, available_timeout, kind, args or {})

    def available(self) -> int | Literal[False]:
        """Return how many devices are free, of all kinds together; False when control cannot be asked."""
        return self._try(self._fleet.available(), "available")

    def availableDevices(self) -> list[str] | Literal[False]:
        """Return the serials of the free devices; False when control cannot be asked."""
        return self._try(self._fleet.control.post("/devices", {}), "availableDevices")

    def getSerials(self) -> list[str]:
        """Return the serials held now, in the order in which they were reserved."""
        return self._fleet.serials

    def extend(self, serials: str | Iterable[str]) -> list[str] | Literal[False]:
        """Give these reservations their full time again; returns the extended serials."""
        return self._try(self._fleet.extend(serials), "extend")

    def extendAll(self) -> list[str] | Literal[False]:
        """Extend every reservation under this client's name; returns the extended serials."""
        return self._try(self._fleet.extend_all(), "extendAll")

    def end(self, serials: str | Iterable[str]) -> list[str] | Literal[False]:
        """End these reservations; returns the ended serials, without those that were over already."""
        return self._try(self._fleet.end(serials), "end")

    def endAll(self) -> list[str] | Literal[False]:
        """End every reservation under this client's name. Safe at exit, in signal handlers, again, without a server."""
        return [] if self._closed else self._try(self._fleet.end_all(), "endAll")

    def reboot(self, serials: str | Iterable[str], timeout: float | None = None) -> list[str] | Literal[False]:
        """Reboot devices, keeping their queues; returns those not ready again within `timeout` seconds."""
        return self._try(self._fleet.reboot(serials, timeout), "reboot")

    def removeSerial(self, serial: str) -> None:
        """Forget a device here; its reservation runs out, or `endAll` ends it."""
        portal.loop.call_soon_threadsafe(self._fleet.drop, serial)

    def clearWorkers(self) -> Any:
        """End all reservations of everybody (the documented `/clear-workers`; needs the role operator)."""
        return self._try(self._fleet.control.post("/clear-workers", {}), "clearWorkers")

    def stop(self) -> None:
        """End everything, hang up, and stop the event handlers. Safe at exit and any number of times."""
        if self._closed:
            return
        self.endAll()
        self._closed = True
        atexit.unregister(self.stop)
        portal.call(self._fleet.close(2.0))
        self.close_handlers()

    def endOnSignal(self, signals: Iterable[int] = (signal.SIGTERM,)) -> None:
        """Have these signals end the program through `sys.exit`, so that reservations are ended; main thread only."""
        for number in signals:
            signal.signal(number, _exit_on)

    # Evaluations and requests

    def evaluateBitstreams(
        self, paths: Iterable[str | Path], serials: str | Iterable[str] | None = None
    ) -> Iterator[Result]:
        """Yield `serial, filepath, value` for each file on each device (default: all held) as they are done.

        A failed one has the value EvaluationFailed and a `reason`.
        """
        files = [paths] if isinstance(paths, str | Path) else list(paths)
        chosen = self.getSerials() if serials is None else serials
        evaluations = [self.evaluation(chosen, path) for path in files]
        return self._evaluate(evaluations, result=BitstreamResult)

    def evaluateEvaluations(
        self,
        evaluations: Iterable[Evaluation],
        result_timeout: float = 30,
        batch_size: int = 5,
        target_batches: int = 2,
        *,
        batch_factory: BatchFactory | None = None,
    ) -> Iterator[Result]:
        """Yield `serial, evaluation, value` as they are done, in no particular order; all devices work at once.

        A device may have `batch_size * (target_batches + 1) - 1` unanswered evaluations, unless a `batch_factory`
        decides. One that answers nothing for `result_timeout` seconds is rebooted once, then its evaluations fail.
        """
        batches = batch_factory or BalancedBatchFactory(batch_size, target_batches)
        return self._evaluate(list(evaluations), batches=batches, result_timeout_s=result_timeout)

    def _evaluate(self, evaluations: Sequence[Evaluation], **options: Any) -> Iterator[Result]:
        for some in portal.iterate(self._fleet.evaluate_in_lists(evaluations, **options)):
            yield from some

    def requestWorker(self, serial: str, event: str, data: Mapping[str, Any]) -> bool:
        """Call what the device's state registered for `event`; files are bytes. False when it was not sent."""
        return not self.requestBatchWorker([serial], event, data)

    def requestBatchWorker(self, serials: str | Iterable[str], event: str, data: Mapping[str, Any]) -> list[str]:
        """Call the same on several devices; returns the serials that could not be sent to."""
        return portal.call(self._fleet.request(serials, event, data))


def _exit_on(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
