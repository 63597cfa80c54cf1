"""Public pytest helpers for people who test their own drivers, nodes and stations.

Product code never imports this package.
"""

from fieldstation.core.plugins import lazy_names
from fieldstation.testing.certificates import Authority
from fieldstation.testing.processes import ServerProcess, ServerStartError, free_port, running
from fieldstation.testing.programs import MissingProgramError, program
from fieldstation.testing.services import Mosquitto, Nats, Postgres, chromium, mosquitto, nats_server, postgres_server
from fieldstation.testing.waiting import DeadlinePassedError, eventually, wait_for

__all__ = [
    "Authority",
    "DeadlinePassedError",
    "MissingProgramError",
    "Mosquitto",
    "Nats",
    "Postgres",
    "ServerProcess",
    "ServerStartError",
    "chromium",
    "eventually",
    "free_port",
    "mosquitto",
    "nats_server",
    "postgres_server",
    "program",
    "running",
    "wait_for",
]

# Not in __all__: a star import must not need the extra.
__getattr__ = lazy_names(
    __name__, "fleet", {"reserved_devices": "fieldstation.testing.devices", "serve": "fieldstation.testing.fleet"}
)
