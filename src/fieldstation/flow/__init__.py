"""Orchestrated flows with people in the loop: approvals, shell commands on workers, Prefect tasks."""

from fieldstation.core.plugins import lazy_names

_MODULES = {
    "client": "ApprovalsClient",
    "model": "Approval command_action digest_of",
    "tasks": (
        "approve approved evaluate record_frames request_slack_approval reserve_devices run_command_on_worker "
        "wait_for_reading"
    ),
    "pipelines": "run_pipeline",
    "serve": "ensure_pool example_shell_command_flow flow task",
}

__getattr__ = lazy_names(
    __name__, "flow", {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names.split()}
)
