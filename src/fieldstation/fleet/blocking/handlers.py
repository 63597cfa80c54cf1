"""Event handlers: methods that are called with the fields of an event, as the document shows."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Protocol, TypeVar

from fieldstation.fleet.client.events import Event

F = TypeVar("F", bound=Callable[..., Any])

log = logging.getLogger(__name__)


def register(event_name: str, *fields: str) -> Callable[[F], F]:
    """Have a handler's method called for each event of that name, with the values of `fields` in order.

    `serial` is always there; when another field is missing in an event, the method is not called. A method that
    overrides a registered one stays registered.
    """

    def mark(method: F) -> F:
        marks = [*getattr(method, "registered_for", ()), (event_name, fields)]
        method.registered_for = marks  # type: ignore[attr-defined]  # the mark that __init_subclass__ collects
        return method

    return mark


class EventSource(Protocol):
    """What handlers are attached to: an EventServer or a client."""

    def handleEvent(self, event: Event) -> None:
        """Give an event to every handler."""


class AbstractEventHandler:
    """Subclass it, decorate methods with `register`, and pass an instance to `addEventHandler`.

    Methods are called one at a time, in the order of the events, in one thread of their own: they may block and may
    call the client. What one raises is logged and stops nobody else.
    """

    _registered: ClassVar[dict[str, list[tuple[str, tuple[str, ...]]]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._registered = {event: list(methods) for event, methods in cls._registered.items()}
        for name, method in vars(cls).items():
            for event, fields in getattr(method, "registered_for", ()):
                inherited = [entry for entry in cls._registered.get(event, []) if entry[0] != name]
                cls._registered[event] = [*inherited, (name, fields)]

    def __init__(self, event_server: EventSource) -> None:
        self.event_server = event_server

    def handleEvent(self, event: Event) -> None:
        """Call the methods that are registered for this event."""
        for name, fields in self._registered.get(event.event, ()):
            try:
                values = [event.field(field) for field in fields]
            except KeyError:
                continue
            getattr(self, name)(*values)

    def sendEvent(self, event: Event) -> None:
        """Give an event to every handler of the same server, as if it had come from there."""
        self.event_server.handleEvent(event)

    def exit(self) -> None:
        """Hear that no more events come; does nothing unless overridden."""


class DefaultBaseEventHandler(AbstractEventHandler):
    """A method for every event that a client can hear from any state; override the ones you need."""

    @register("initialized", "serial")
    def initialized(self, serial: str) -> None:
        """The device is ready for requests."""

    @register("failure", "serial")
    def failure(self, serial: str) -> None:
        """The device is lost; its reservation is over."""

    @register("reservation end", "serial")
    def reservationEnd(self, serial: str) -> None:
        """The reservation is over, for whatever reason."""

    @register("reservation ending soon", "serial")
    def reservationEndingSoon(self, serial: str) -> None:
        """Less than 20 minutes are left of the reservation."""

    @register("devices_available", "amount")
    def devicesAvailable(self, amount: int) -> None:
        """So many devices are free now."""


class ResultsEventHandler(AbstractEventHandler):
    """The stub for states that answer evaluations: override `results`."""

    @register("results", "serial", "batch_id", "results")
    def results(self, serial: str, batch_id: str, results: list[Any]) -> None:
        """Evaluations are done: pairs of the evaluation's id and its value as it is on the wire."""


class LoggerEventHandler(AbstractEventHandler):
    """Writes every event to `logger` at level INFO."""

    def __init__(self, event_server: EventSource, logger: logging.Logger) -> None:
        super().__init__(event_server)
        self.logger = logger

    def handleEvent(self, event: Event) -> None:
        """Log it."""
        self.logger.info("[%s] %s %s", event.serial, event.event, dict(event.contents))


class Extends(Protocol):
    """Something that can extend reservations."""

    def extend(self, serials: Iterable[str]) -> Any:
        """Extend them."""


class ReservationExtender(AbstractEventHandler):
    """Extends a reservation when the server says that it ends soon. Our clients extend theirs without it."""

    def __init__(self, event_server: EventSource, client: Extends, logger: logging.Logger) -> None:
        super().__init__(event_server)
        self.client = client
        self.logger = logger

    @register("reservation ending soon", "serial")
    def extend(self, serial: str) -> None:
        """Ask for the full time again."""
        if not self.client.extend([serial]):
            self.logger.error("The reservation of %s could not be extended.", serial)


class AvailabilityWaiter(AbstractEventHandler):
    """Lets a thread sleep until enough devices are free, first come first served.

    `reserve(..., wait_for_available=True)` stands in the fair queue instead.
    """

    def __init__(self, event_server: EventSource) -> None:
        super().__init__(event_server)
        self._changed = threading.Condition()
        self.amount = 0

    @register("devices_available", "amount")
    def devicesAvailable(self, amount: int) -> None:
        """Take the new amount."""
        with self._changed:
            self.amount = amount
            self._changed.notify_all()

    def waitForAvailable(self, amount: int, timeout: float | None = None) -> bool:
        """Wait for at most `timeout` seconds; True when `amount` devices were free when last heard of."""
        with self._changed:
            return self._changed.wait_for(lambda: self.amount >= amount, timeout)
