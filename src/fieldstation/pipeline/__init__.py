"""Graphs of nodes on NATS JetStream: runners, process context, manifest, local supervision.

A node is `Runner().task_runner().with_handler(f)`, or a function under `@task`, `@trigger` or `@exit`.
"""

from fieldstation.core.plugins import lazy_names

_NAMES = {
    "Runner": "fieldstation.pipeline.compose",
    "Scope": "fieldstation.pipeline.settings",
    "RejectedError": "fieldstation.pipeline.errors",
    "PipelineError": "fieldstation.pipeline.errors",
    "RequestFailedError": "fieldstation.pipeline.errors",
    "RequestTimeoutError": "fieldstation.pipeline.errors",
    "MessageType": "fieldstation.pipeline.model",
    "exit": "fieldstation.pipeline.node",
    "task": "fieldstation.pipeline.node",
    "trigger": "fieldstation.pipeline.node",
}

__getattr__ = lazy_names(__name__, "pipeline", _NAMES)


def __dir__() -> list[str]:
    return sorted(_NAMES)
