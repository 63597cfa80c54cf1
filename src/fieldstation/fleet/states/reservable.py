"""The kinds that clients may reserve, and the state class behind each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from fieldstation.fleet.errors import BadRequestError, UnknownKindError
from fieldstation.fleet.states.core import AbstractState
from fieldstation.fleet.states.device import Device

S = TypeVar("S", bound=type[AbstractState])


@dataclass(frozen=True, slots=True)
class Kind:
    """A reservable kind: its state class and the names of the reservation arguments its constructor takes."""

    name: str
    state: type[AbstractState]
    arguments: tuple[str, ...]

    def build(self, device: Device, args: Mapping[str, Any]) -> AbstractState:
        """Make the state for one reservation; arguments that were not given are None."""
        return self.state(device, *[args.get(name) for name in self.arguments])


_kinds: dict[str, Kind] = {}


def reservable(name: str, *arguments: str) -> Callable[[S], S]:
    """Offer the decorated state as kind `name`; its constructor gets the device, then these reservation arguments."""

    def add(state: S) -> S:
        known = _kinds.get(name)
        if known is not None and (known.state.__module__, known.state.__qualname__) != (
            state.__module__,
            state.__qualname__,
        ):
            raise BadRequestError(field="kind", problem=f"{name!r} is already taken by {known.state.__qualname__}")
        state.kind = name
        _kinds[name] = Kind(name, state, arguments)
        return state

    return add


def kind(name: str) -> Kind:
    """Return the kind `name`; raises UnknownKindError."""
    if name not in _kinds:
        raise UnknownKindError(kind=name, known=", ".join(sorted(_kinds)) or "none")
    return _kinds[name]


def kinds() -> tuple[str, ...]:
    """Return the names of all kinds whose states were imported."""
    return tuple(sorted(_kinds))
