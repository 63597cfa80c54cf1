"""The documented import path of what belongs to the kind `pulsecount`."""

from fieldstation.core.plugins import lazy_names

__getattr__ = lazy_names(
    __name__,
    "fleet",
    {
        "EvaluationFailed": "fieldstation.fleet.client.evaluation",
        "PulseCountEvaluation": "fieldstation.fleet.client.evaluation",
        "PulseCountClient": "fieldstation.fleet.blocking.drivers",
    },
)
