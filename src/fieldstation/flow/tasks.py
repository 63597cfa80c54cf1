"""Prefect tasks: run a command on a worker, ask people, reserve devices, look at readings.

Everything here needs the extra `flow` (Prefect 3); `FIELDSTATION_CONTROL` is where approvals and devices live.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from prefect import get_run_logger, task
from prefect.runtime import flow_run

from fieldstation.core.errors import DeadlineError, FieldstationError
from fieldstation.flow.client import ApprovalsClient
from fieldstation.flow.command import Result
from fieldstation.flow.errors import CommandRefusedError, PrefectUnreachableError
from fieldstation.flow.model import Approval, State, command_action
from fieldstation.flow.prefect_api import FINAL, PrefectApi
from fieldstation.flow.running import run_action
from fieldstation.kit.environment import setting
from fieldstation.kit.slack import ask_for_approval, await_approval_response


class CommandFailedError(FieldstationError):
    """The command {command} failed: {problem}."""


@task(name="Run Shell Command on Worker", tags=["worker", "shell"])
def run_command_on_worker(
    command: str | list[str] | dict[str, Any],
    *,
    pool: str | None = None,
    approval: str | None = None,
    shell: bool = False,
    timeout_s: float = 3600.0,
    repeatable: bool = False,
) -> str:
    """Run a command and return what it printed (bounded); CommandFailedError when it did not end with 0.

    A text is split into arguments; no shell sees it unless `shell=True`. With `pool` a worker of that pool runs it,
    which checks `approval` right before; without one it runs here. `repeatable` lets a worker repeat it after a crash.
    """
    action = (
        command
        if isinstance(command, dict)
        else command_action(command, pool=pool or "", shell=shell, timeout_s=timeout_s, repeatable=repeatable)
    )
    if pool is None:
        result = run_action(action, approval) if approval else _run_here(action)
    else:
        result = _run_in_pool(action, pool, approval)
    if not result.ok:
        why = "it took too long" if result.timed_out else f"exit code {result.exit_code}"
        raise CommandFailedError(command=" ".join(action["arguments"])[:200], problem=f"{why}: {result.output[-500:]}")
    return result.output


def _run_here(action: dict[str, Any]) -> Result:
    from fieldstation.flow.command import check_allowed, run_command
    from fieldstation.flow.running import allow_list, checked

    arguments, timeout_s = checked(action)
    check_allowed(arguments, allow_list())
    return run_command(
        arguments, timeout_s=timeout_s, on_output=lambda text: get_run_logger().info("%s", text.rstrip())
    )


def _run_in_pool(action: dict[str, Any], pool: str, approval: str | None) -> Result:
    api = PrefectApi()
    deployment = api.command_deployment(pool)
    key = f"{flow_run.id or time.time_ns()}-{approval or time.time_ns()}"
    run = api.create_run(deployment, {"action": action, "approval": approval}, action["arguments"][0][:40], key)
    deadline = time.monotonic() + action["timeout_s"] + float(setting("FIELDSTATION_FLOW_PICKUP_S", "86400"))
    while time.monotonic() < deadline:
        try:
            found = api.run(run)
        except PrefectUnreachableError as error:
            get_run_logger().warning("%s", error)
            time.sleep(5)
            continue
        if found["state_type"] in FINAL:
            break
        time.sleep(1)
    else:
        raise DeadlineError(what=f"the run of the command in the pool {pool}", deadline_s=action["timeout_s"])
    outcome = api.artifact(run)
    if outcome is None:
        message = (found.get("state") or {}).get("message") or found["state_type"]
        raise CommandRefusedError(command=" ".join(action["arguments"])[:200], problem=message)
    return Result(**outcome)


@task(name="Request Manual Approval via Slack")
def request_slack_approval(prompt: str, channel: str | None = None, timeout_s: float = 300) -> str:
    """Ask `prompt` in Slack; returns `approved`, `denied`, `timeout`, or `error` when it could not be posted.

    It is a question without a record; `approve` binds the answer to exactly what will run.
    """
    request = ask_for_approval(prompt, channel)
    if not request:
        return "error"
    return str(await_approval_response(request["ts"], request["channel"], timeout_s))


@task(name="Approve")
def approve(
    title: str,
    action: dict[str, Any] | None = None,
    *,
    reason: str = "",
    approvers: Sequence[str] = (),
    quorum: int = 1,
    own_answer: bool = True,
    expires_in_s: float = 3600.0,
) -> Approval:
    """Ask people and wait: the record once it is decided. Look at its `state`; a flow that crashed and runs again
    finds its own request. Waiting costs one idle connection to the control."""
    client = ApprovalsClient()
    key = f"prefect-{flow_run.id}-{title}" if flow_run.id else None
    asked = client.ask(
        title,
        action or {"kind": "question", "title": title},
        reason=reason,
        approvers=approvers,
        quorum=quorum,
        own_answer=own_answer,
        expires_in_s=expires_in_s,
        key=key,
    )
    get_run_logger().info("waiting for an answer to %s: %s", asked.id, title)
    return client.wait(asked.id)


def approved(record: Approval) -> bool:
    """True when the answer was yes."""
    return record.state is State.APPROVED


@contextmanager
def reserve_devices(
    amount: int, *, client: str = "flow", control: str | None = None, wait_s: float = 600.0, factory: Any = None
) -> Iterator[Any]:
    """Hold devices for a block; it yields the connected client, whose documented methods talk to them.

    They are given back when the block ends, and when the process dies (the control ends a lease without a socket).
    """
    from fieldstation import fleet

    made = (factory or fleet.PulseCountClient)(control or setting("FIELDSTATION_CONTROL"), client)
    try:
        made.reserve(amount, wait_for_available=True, available_timeout=wait_s)
        yield made
    finally:
        made.stop()


@task(name="Evaluate")
def evaluate(boards: Any, evaluations: Sequence[Any]) -> list[Any]:
    """Evaluate on reserved devices; returns the results (`serial, evaluation, value`) in the order they arrived."""
    return list(boards.evaluateEvaluations(list(evaluations)))


@task(name="Record Frames")
def record_frames(host: str, count: int, *, timeout_s: float = 60.0, **what: Any) -> list[Any]:
    """Collect `count` frames of the stream server `host` (`name:port`); DeadlineError when they do not come in time.

    `what` is handed to the client: `movie`, `pulse_height`, `modules`, `every`.
    """
    from fieldstation import stream

    frames: list[Any] = []
    with stream.DaqDataClient({"daq_nodes": [{"ip_addr": host}]}) as client:
        try:
            for frame in client.frames([host], timeout_s=timeout_s, **what):
                frames.append(frame)
                if len(frames) >= count:
                    return frames
        except Exception as error:
            problem = f"recording {count} frames from {host} ({len(frames)} came)"
            raise DeadlineError(what=problem, deadline_s=f"{timeout_s:g}") from error
    raise DeadlineError(what=f"recording {count} frames from {host} ({len(frames)} came)", deadline_s=f"{timeout_s:g}")


@task(name="Wait for Reading")
def wait_for_reading(
    topic: str, accept: Callable[[Any], bool], *, timeout_s: float = 600.0, settings: Any = None
) -> Any:
    """Wait for an MQTT message (JSON, else text) that `accept` says yes to, and return it; else DeadlineError."""
    from fieldstation.kit.mqtt import MqttClient

    async def wait() -> Any:
        async with MqttClient(settings) as mqtt, mqtt.messages(topic, 1) as messages:
            async for message in messages:
                try:
                    value = message.json()
                except ValueError:
                    value = message.text
                if accept(value):
                    return value
        return None

    async def bounded() -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                return await wait()
        except TimeoutError as error:
            raise DeadlineError(what=f"waiting for a reading on {topic}", deadline_s=timeout_s) from error

    return asyncio.run(bounded())
