"""What a device can be made to do. One state object at a time lives on a device; drivers share all of them."""

from fieldstation.fleet.states.core import AbstractState
from fieldstation.fleet.states.reservable import reservable

__all__ = ["AbstractState", "reservable"]
