"""AbstractState: what a device does at the moment, and which of its methods a client may call."""

from __future__ import annotations

import inspect
import logging
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from fieldstation.fleet.driver import Node
from fieldstation.fleet.errors import BadRequestError, FleetError
from fieldstation.fleet.model import DeviceState
from fieldstation.fleet.states.device import Device, DeviceEventSender

F = TypeVar("F", bound=Callable[..., Any])
_MARK = "__fleet_event__"


class SwitchInConstructorError(FleetError):
    """{state} called switch in its constructor; do that in start(), when the state is in place."""


class NoDatabaseError(FleetError):
    """A worker has no database. A device's status follows from the state it is in: set the class attribute `status`."""


class AbstractState:
    """What a device does until it switches to another state.

    Written as documented: plain methods, which may block; each device has a thread of its own for them and they run
    one after another. A method may also be `async def`, it then runs on the worker's event loop and must not block.
    An `async def run(self)` is started after start() and cancelled before handleExit(); when it raises, a reserved
    device is given back (its holder hears `failure`) and any other device is broken.

    `status` is what control shows meanwhile. `blocking = False` promises that no plain method ever waits: they are
    then called on the event loop, which saves two thread changes for each call.
    """

    status: ClassVar[DeviceState] = DeviceState.RESERVED
    blocking: ClassVar[bool] = True
    keeps: bool = False  # whether the device stays known meanwhile, although no node of it is left
    kind: ClassVar[str | None] = None  # the reservable kind, set by @reservable
    _events: ClassVar[Mapping[str, tuple[str, tuple[str, ...]]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # Kept by method name: an override without a decorator of its own stays registered.
        events = dict(cls._events)
        for name, attribute in vars(cls).items():
            for event, fields in getattr(attribute, _MARK, ()):
                events[event] = (name, fields)
        cls._events = events

    def __init__(self, device: Device) -> None:
        self.device = device
        self.switching = False
        self.logger = logging.LoggerAdapter(
            logging.getLogger(type(self).__module__),
            {"fields": {"device": device.serial, "state": type(self).__name__}},
        )
        self._switch: Callable[[Callable[..., AbstractState]], None] | None = None
        self._restart: Callable[[], None] | None = None

    @staticmethod
    def register(event: str, *fields: str) -> Callable[[F], F]:
        """Let clients call the method with the request `event`; `fields` of its contents become the arguments.

        Arguments are checked against the method's annotations (classes, `list[type]`, `dict`); a missing or wrong one
        refuses the request. Files arrive as bytes.
        """

        def mark(method: F) -> F:
            setattr(method, _MARK, (*getattr(method, _MARK, ()), (event, fields)))
            return method

        return mark

    @property
    def serial(self) -> str:
        """The device's serial."""
        return self.device.serial

    @property
    def config(self) -> object:
        """The worker's configuration."""
        return self.device.config

    @property
    def database(self) -> object:
        """There is none on a worker; raises NoDatabaseError with what to use instead."""
        raise NoDatabaseError

    @property
    def device_event_sender(self) -> DeviceEventSender:
        """Sends events to the client that holds the device."""
        return self.device.events

    def start(self) -> Any:
        """Called once when the state is in place. Unless overridden it says that a reserved device is initialized."""
        if self.kind is not None:
            self.device_event_sender.sendDeviceInitialized()

    async def run(self) -> None:
        """What goes on in the background while the state lives."""

    def handleAdd(self, dev: Node) -> Any:
        """Called when a node of the device appears."""

    def handleRemove(self, dev: Node) -> Any:
        """Called when a node of the device goes away."""

    def reboot(self) -> Any:
        """Try to recover from a malfunction, keeping the client's data."""
        self.logger.info("there is nothing to reboot in this state")

    def give_up(self, reason: str) -> None:
        """Called on the event loop when the device is lost, while its holder can still be told; must not wait."""

    def handleExit(self) -> Any:
        """Called once before another state takes over; let go of what you hold."""

    def handleRequest(self, event: str, contents: Mapping[str, Any]) -> Any:
        """Call the method registered for `event`; raises BadRequestError before anything is changed."""
        name, fields = self._registered(event)
        method = getattr(self, name)
        return method(*_arguments(method, fields, contents))

    def _registered(self, event: str) -> tuple[str, tuple[str, ...]]:
        if event not in self._events:
            known = ", ".join(sorted(self._events)) or "none"
            raise BadRequestError(field="event", problem=f"{event!r} is not offered here; offered are: {known}")
        return self._events[event]

    def switch(self, factory: Callable[..., AbstractState]) -> None:
        """Leave this state for `factory(device)` (or `factory()`); only the first call counts. Any thread may call."""
        if self._switch is None:
            raise SwitchInConstructorError(state=type(self).__name__)
        self._switch(factory)

    def restart(self) -> None:
        """Cancel run() and begin it again, with everything else of the state kept."""
        if self._restart is not None:
            self._restart()


def _arguments(method: Callable[..., Any], fields: tuple[str, ...], contents: Mapping[str, Any]) -> list[Any]:
    if not isinstance(contents, Mapping):
        raise BadRequestError(field="contents", problem="it must be an object")
    annotations = [p.annotation for p in inspect.signature(method, eval_str=True).parameters.values()]
    arguments = []
    for position, name in enumerate(fields):
        if name not in contents:
            raise BadRequestError(field=f"contents.{name}", problem="it is missing")
        value = contents[name]
        wanted = annotations[position] if position < len(annotations) else inspect.Parameter.empty
        if not _fits(value, wanted):
            kind = getattr(wanted, "__name__", str(wanted))
            problem = f"it must be {kind}, not {type(value).__name__}"
            raise BadRequestError(field=f"contents.{name}", problem=problem)
        arguments.append(value)
    return arguments


def _fits(value: object, wanted: Any) -> bool:
    if wanted in (inspect.Parameter.empty, Any):
        return True
    if wanted is None:
        return value is None
    origin, inner = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, choice) for choice in inner)
    if origin is list:
        return isinstance(value, list) and all(_fits(item, inner[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(k, inner[0]) and _fits(v, inner[1]) for k, v in value.items())
    wanted = origin or wanted
    if not isinstance(wanted, type):
        return True
    if isinstance(value, bool):
        return wanted in (bool, object)
    return isinstance(value, (int, float) if wanted is float else wanted)
