"""The Prefect flow that a work pool's workers run for one approved command (extra `prefect-worker`)."""

from __future__ import annotations

import shlex
from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from fieldstation.flow.errors import CommandRefusedError
from fieldstation.flow.prefect_api import COMMAND_FLOW, PrefectApi, as_markdown
from fieldstation.flow.running import run_action


@flow(name=COMMAND_FLOW, log_prints=True, retries=0)
def run_approved_command(action: dict[str, Any], approval: str | None = None) -> dict[str, Any]:
    """Run a command action after asking the control whether exactly this was approved; returns how it ended."""
    result = run_action(action, approval, on_output=lambda text: print(text, end=""))  # noqa: T201 - log_prints takes it
    outcome = result.as_json()
    command = shlex.join(action["arguments"])
    if flow_run.id:
        PrefectApi().put_artifact(str(flow_run.id), outcome, as_markdown(command, outcome))
    if not result.ok:
        ended = "it took too long" if result.timed_out else f"it ended with exit code {result.exit_code}"
        raise CommandRefusedError(f"The command {command} failed: {ended}.")
    return outcome
