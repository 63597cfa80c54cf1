"""The experiment of the demonstration: reserve, evaluate while camera and weather station run, ask, publish."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import nats.errors

from fieldstation.core.errors import FieldstationError
from fieldstation.core.retry import Backoff, retry
from fieldstation.fleet.client.evaluation import PulseCountEvaluation, Result
from fieldstation.fleet.client.session import FleetClient
from fieldstation.fleet.errors import ControlUnreachableError, NotHeldError, ReservationFailedError
from fieldstation.flow.client import ApprovalsClient
from fieldstation.flow.errors import ApprovalsUnreachableError
from fieldstation.flow.model import Approval, State, command_action
from fieldstation.flow.running import run_action
from fieldstation.site.bridges.record import record
from fieldstation.site.bridges.results import Channel, channel
from fieldstation.site.demo.counts import BRIDGES, PRODUCT, Check, archived, checks, flowing
from fieldstation.site.demo.files import Layout

BOARDS = 2
DATA_S = 120.0  # for the first weather and the first frame to come through
SETTLE_S = 150.0  # for what is on its way to arrive
OUTAGE_S = 60.0  # of control
NAME = "demo"

T = TypeVar("T")

Say = Callable[[str], None]


class DemoDataError(FieldstationError):
    """No {what} came through the pipeline within {seconds:g} s; the lines of the roles above say why."""


class NotApprovedError(FieldstationError):
    """The report is not published: the request {id} was {state}."""


@dataclass(slots=True)
class Outcome:
    """What the evaluations gave. `sent` counts evaluations times boards; every one has its result."""

    sent: int = 0
    results: list[Result] = field(default_factory=list)


async def until_data(layout: Layout) -> None:
    """Wait for weather and frames in the table: then a pulse count has company."""
    for source, what in (("station", "weather"), ("frames", "frame")):
        try:
            async with asyncio.timeout(DATA_S):
                while not (await asyncio.to_thread(archived, layout.archive))[source]:  # noqa: ASYNC110 - another process writes it
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise DemoDataError(what=what, seconds=DATA_S) from None


async def evaluate(layout: Layout, files: Sequence[Path], say: Say, seconds: float = 0.0) -> Outcome:
    """Reserve two boards and evaluate every file on both, again until `seconds` are over; each result goes into the
    pipeline. Boards that are lost meanwhile are reserved anew."""
    outcome = Outcome()
    end = time.monotonic() + seconds
    patience = time.monotonic() + seconds + OUTAGE_S
    async with channel(layout.manifest, PRODUCT, layout.nats_url, process=BRIDGES) as pulses:
        while not outcome.sent or time.monotonic() < end:
            try:
                async with FleetClient(layout.url, NAME) as client:
                    held = await client.reserve(BOARDS, wait_s=120)
                    say(f"Reserved {', '.join(held)}; evaluating {len(files)} circuits on both.")
                    while len(client.serials) == BOARDS:
                        await _round(client, held, files, outcome, pulses)
                        if time.monotonic() >= end:
                            break
                        await asyncio.sleep(0.5)
            except (ControlUnreachableError, NotHeldError, ReservationFailedError) as error:
                if time.monotonic() > patience:
                    raise
                say(f"{error} Trying again.")
                await asyncio.sleep(1)
    return outcome


async def _round(
    client: FleetClient, held: Sequence[str], files: Sequence[Path], outcome: Outcome, pulses: Channel
) -> None:
    asked = [PulseCountEvaluation(held, file) for file in files]
    results = client.evaluate(asked)
    outcome.sent += len(asked) * len(held)
    try:
        async for result in results:
            outcome.results.append(result)
            await pulses.send(f"{result.evaluation.id}-{result.serial}", pulse_record(result))
    except NotHeldError:  # said before anything was sent
        outcome.sent -= len(asked) * len(held)
        raise


def pulse_record(result: Result) -> Any:
    """Return the record of a result; a failed one says why instead of a count."""
    values: dict[str, Any] = {"serial": result.serial, "file": Path(result.evaluation.filepath).name}
    values |= {"reason": result.reason} if result.failed else {"pulses": result.value}
    return record("pulses", f"{result.evaluation.id}-{result.serial}", time.time(), values)


async def patiently(call: Callable[[], T]) -> T:
    """Run a blocking call to the approvals in a thread; an outage of control is waited for."""

    async def once() -> T:
        return await asyncio.to_thread(call)

    return await retry(once, on=ApprovalsUnreachableError, backoff=Backoff(0.2, 1.0), deadline_s=OUTAGE_S)


async def ask(layout: Layout) -> Approval:
    """Ask for the last step: to publish the report. Nobody publishes before a yes."""
    command = [sys.executable, "-m", "fieldstation.site.demo.report", str(layout.folder)]
    client, key = ApprovalsClient(layout.url, name=NAME), f"demo-{time.time_ns()}"
    return await patiently(
        lambda: client.ask(
            "Publish the report of the demonstration",
            command_action(command, timeout_s=120.0),
            reason="The boards are evaluated; the report shows counts, frames and weather.",
            expires_in_s=24 * 3600.0,
            key=key,
        )
    )


async def say_yes(layout: Layout, asked: Approval) -> None:
    """Answer through the API, as `--once` does."""
    client = ApprovalsClient(layout.url, name="demo --once")
    await patiently(lambda: client.approve(asked.id, "the demonstration answers itself"))


async def decided(layout: Layout, asked: Approval) -> Approval:
    """Wait for the answer, wherever it is given; NotApprovedError when it is no."""
    client = ApprovalsClient(layout.url, name=NAME)
    found = asked
    while found.is_open:  # in short turns: a thread cannot be cancelled, and whoever stops us waits for it
        found = await patiently(lambda: client.get(asked.id, wait_s=1.0))
    if found.state is not State.APPROVED:
        raise NotApprovedError(id=found.id, state=found.state.value)
    return found


async def publish(layout: Layout, approved: Approval) -> str:
    """Run exactly what was approved, once; returns what it printed."""
    client = ApprovalsClient(layout.url, name=NAME)
    result = await asyncio.to_thread(run_action, approved.action, approved.id, client=client, allow=())
    if not result.ok:
        raise FieldstationError(f"The report could not be written: {result.output.strip()[-500:]}")
    return result.output.strip()


async def settled(layout: Layout, outcome: Outcome) -> Sequence[Check]:
    """Wait until every equation holds and nothing is on its way; after a while they are returned as they are."""
    end = time.monotonic() + SETTLE_S
    while True:
        try:
            flow = await flowing(layout)
        except (FieldstationError, nats.errors.Error, OSError, TimeoutError):  # a server is just being started again
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.5)
            continue
        found = await asyncio.to_thread(checks, layout, flow, outcome.sent, len(outcome.results))
        if (all(check.ok for check in found) and flow.lag == 0) or time.monotonic() > end:
            return found
        await asyncio.sleep(0.3)
