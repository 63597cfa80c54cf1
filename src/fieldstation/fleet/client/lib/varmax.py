"""The documented import path of what belongs to the kind `variance`."""

from fieldstation.core.plugins import lazy_names

__getattr__ = lazy_names(
    __name__,
    "fleet",
    {
        "EvaluationFailed": "fieldstation.fleet.client.evaluation",
        "VarMaxEvaluation": "fieldstation.fleet.client.evaluation",
        "VarMaxClient": "fieldstation.fleet.blocking.drivers",
    },
)
