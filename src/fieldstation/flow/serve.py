"""Flows whose `serve` takes a work pool, and the documented example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

from prefect import Flow
from prefect import task as task
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from fieldstation.flow.errors import PrefectUnreachableError
from fieldstation.flow.model import State as Decision
from fieldstation.flow.model import command_action, shown
from fieldstation.flow.prefect_api import PrefectApi
from fieldstation.flow.tasks import approve, run_command_on_worker
from fieldstation.kit.slack import send_slack_message


class PoolFlow(Flow[Any, Any]):
    """A Prefect flow that stays on the orchestrator and sends its commands to a work pool."""

    is_pool_flow = True

    def serve(  # type: ignore[override]  # the rest is handed on as it is, whatever this Prefect takes
        self, name: str | None = None, *, work_pool_name: str | None = None, **options: Any
    ) -> None:
        """As Prefect's `serve`; with `work_pool_name` the parameter `pool` of every run is that pool."""
        if work_pool_name is not None:
            ensure_pool(work_pool_name)
            options["parameters"] = {**(options.get("parameters") or {}), "pool": work_pool_name}
        super().serve(name, **options)


@overload
def flow(function: Callable[..., Any], /, **options: Any) -> PoolFlow: ...


@overload
def flow(function: None = None, /, **options: Any) -> Callable[[Callable[..., Any]], PoolFlow]: ...


def flow(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """As Prefect's decorator `flow`; the flow's `serve` takes `work_pool_name`."""
    if function is None:
        return lambda decorated: PoolFlow(decorated, **options)
    return PoolFlow(function, **options)


def ensure_pool(name: str, api: PrefectApi | None = None) -> None:
    """Make the work pool when it is missing, and its deployment of commands. Asks no server but Prefect's own."""
    api = api or PrefectApi()
    if api.pool(name) is None:
        from prefect.workers.process import ProcessWorker

        template = ProcessWorker.get_default_base_job_template()
        try:
            api.call("POST", "/work_pools/", {"name": name, "type": "process", "base_job_template": template})
        except PrefectUnreachableError:
            if api.pool(name) is None:  # somebody else may have made it in between
                raise
    api.command_deployment(name)


@flow(name="Example Shell Command Flow")
def example_shell_command_flow(command: str, pool: str | None = None, expires_in_s: float = 3600.0) -> State[Any]:
    """Ask for approval of `command` and run it on a worker of `pool` (here without one) when the answer is yes.

    Ends as Completed with the name Approved, Denied or Expired.
    """
    action = command_action(command, pool=pool or "")
    where = f"on the pool {pool}" if pool else "on the orchestrator"
    record = approve(
        f"Run a shell command {where}", action, reason=f"flow run {flow_run.name}", expires_in_s=expires_in_s
    )
    who = ", ".join(answer.who for answer in record.answers) or "nobody"
    if record.state is not Decision.APPROVED:
        _tell(f"Not run ({record.state.value}, {who}): {shown(action)}")
        return Completed(name=record.state.value.capitalize(), message=f"{record.state.value}: {who}")
    _tell(f"Approved by {who}: {shown(action)}")
    try:
        output = run_command_on_worker(action, pool=pool, approval=record.id)
    except Exception as error:
        return Failed(message=str(error))
    return Completed(name="Approved", message=output[-1000:])


def _tell(text: str) -> None:
    from fieldstation.kit.environment import setting
    from fieldstation.kit.slack_api import escape

    if setting("SLACK_BOT_TOKEN"):
        send_slack_message(escape(text))
