"""The document's other import path of the blocking clients."""

from fieldstation.core.plugins import lazy_names

__getattr__ = lazy_names(
    __name__,
    "fleet",
    dict.fromkeys(("PulseCountClient", "VarMaxClient"), "fieldstation.fleet.blocking.drivers"),
)
