"""Reserve devices that are plugged into many computers: control server, workers, drivers, clients."""

from fieldstation.core.plugins import lazy_names

_NAMES = {
    "AbstractState": "fieldstation.fleet.states",
    "reservable": "fieldstation.fleet.states",
}

__getattr__ = lazy_names(__name__, "fleet", _NAMES)


def __dir__() -> list[str]:
    return sorted([*globals(), *_NAMES])
