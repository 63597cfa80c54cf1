"""The documented import path of event handlers and batch factories."""

from fieldstation.core.plugins import lazy_names

__getattr__ = lazy_names(
    __name__,
    "fleet",
    {
        "AbstractEventHandler": "fieldstation.fleet.blocking.handlers",
        "AvailabilityWaiter": "fieldstation.fleet.blocking.handlers",
        "BalancedBatchFactory": "fieldstation.fleet.client.window",
        "DefaultBaseEventHandler": "fieldstation.fleet.blocking.handlers",
        "Event": "fieldstation.fleet.client.events",
        "EventServer": "fieldstation.fleet.blocking.server",
        "LoggerEventHandler": "fieldstation.fleet.blocking.handlers",
        "PatientBatchFactory": "fieldstation.fleet.client.window",
        "QuickBatchFactory": "fieldstation.fleet.client.window",
        "ReservationExtender": "fieldstation.fleet.blocking.handlers",
        "register": "fieldstation.fleet.blocking.handlers",
    },
)
