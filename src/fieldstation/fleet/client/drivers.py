"""The documented import path of the blocking clients; they live in `fieldstation.fleet.blocking`."""

from fieldstation.core.plugins import lazy_names

__getattr__ = lazy_names(
    __name__,
    "fleet",
    dict.fromkeys(("PulseCountClient", "VarMaxClient"), "fieldstation.fleet.blocking.drivers"),
)
