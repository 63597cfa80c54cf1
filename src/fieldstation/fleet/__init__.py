"""Reserve devices that are plugged into many computers: control server, workers, drivers, clients."""

from fieldstation.core.plugins import lazy_names

_NAMES = {
    "AbstractEventHandler": "fieldstation.fleet.blocking.handlers",
    "AbstractState": "fieldstation.fleet.states",
    "BaseClient": "fieldstation.fleet.blocking.client",
    "BalancedBatchFactory": "fieldstation.fleet.client.window",
    "Evaluation": "fieldstation.fleet.client.evaluation",
    "Event": "fieldstation.fleet.client.events",
    "EvaluationFailed": "fieldstation.fleet.client.evaluation",
    "EventServer": "fieldstation.fleet.blocking.server",
    "FleetClient": "fieldstation.fleet.client.session",
    "PatientBatchFactory": "fieldstation.fleet.client.window",
    "PulseCountClient": "fieldstation.fleet.blocking.drivers",
    "PulseCountEvaluation": "fieldstation.fleet.client.evaluation",
    "QuickBatchFactory": "fieldstation.fleet.client.window",
    "VarMaxClient": "fieldstation.fleet.blocking.drivers",
    "VarMaxEvaluation": "fieldstation.fleet.client.evaluation",
    "register": "fieldstation.fleet.blocking.handlers",
    "reservable": "fieldstation.fleet.states",
}

__getattr__ = lazy_names(__name__, "fleet", _NAMES)


def __dir__() -> list[str]:
    return sorted([*globals(), *_NAMES])
