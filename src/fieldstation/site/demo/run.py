"""Start the demonstration's site, run its experiment, and say what came of it."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from fieldstation.fleet.lean import import_socketio
from fieldstation.site.compose import supervisor
from fieldstation.site.demo import files
from fieldstation.site.errors import RoleStartError
from fieldstation.site.supervise import Supervisor

if TYPE_CHECKING:
    from fieldstation.fleet.client.evaluation import Result
    from fieldstation.site.demo.counts import Check

TRIES = 3  # to find ports that stay free until the roles have them

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wishes:
    """How the demonstration is wanted. `once`: answer the approval ourselves, check every count, end. `seconds`: go on
    evaluating for so long."""

    folder: Path
    port: int = 8080
    once: bool = False
    seconds: float = 0.0
    circuits: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it."""

    results: Sequence[Result]
    checks: Sequence[Check]
    files: str

    @property
    def ok(self) -> bool:
        """Every evaluation has a value and every equation holds."""
        return not any(result.failed for result in self.results) and all(check.ok for check in self.checks)


async def run(wishes: Wishes, say: Say, show: Callable[[Report], None]) -> bool:
    """Run until the experiment is over (`once`), or until cancelled; returns whether all was well."""
    for left in reversed(range(TRIES)):
        files.forget(wishes.folder)
        layout = files.write(wishes.folder, port=wishes.port)
        try:
            return await _run(layout, wishes, say, show)
        except RoleStartError as error:
            # A port that was free when it was chosen may be somebody else's when the role wants it.
            if not left or not (taken := files.taken(layout)):
                raise
            say(f"{error} Port {', '.join(map(str, taken))} was free a moment ago; starting again with another one.")
    raise AssertionError("unreachable")


async def _run(layout: files.Layout, wishes: Wishes, say: Say, show: Callable[[Report], None]) -> bool:
    site = supervisor(layout.site)
    with (wishes.folder / "roles.log").open("a", buffering=1) as words:

        def tell(role: str, text: str) -> None:
            words.write(f"{role:<18} | {text}\n")

        site.tell(tell)
        await site.start()
        try:
            async with asyncio.TaskGroup() as group:
                keeping = group.create_task(site.run())
                try:
                    return await _experiment(layout, site, wishes, say, show)
                finally:
                    keeping.cancel()
        except BaseExceptionGroup as group:
            raise first_of(group) from None
        finally:
            await site.stop()


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the failure that came first; the rest was only cancelled by it."""
    first = group.exceptions[0]
    return first_of(first) if isinstance(first, BaseExceptionGroup) else first


def _experiments() -> ModuleType:
    # Imported here: a second that the panel need not wait for.
    import_socketio()
    from fieldstation.site.demo import experiment

    return experiment


async def _experiment(
    layout: files.Layout, site: Supervisor, wishes: Wishes, say: Say, show: Callable[[Report], None]
) -> bool:
    say(f"Starting the site of {layout.site}; what its roles say is in {wishes.folder / 'roles.log'}.")
    await site.processes["fleet.control"].ready.wait()
    panel = layout.url + ("/ui" if importlib.util.find_spec("nicegui") is not None else "/")
    say(f"The panel is at {panel}")
    experiment = _experiments()
    await site.until_ready()
    say("A telescope streams and a weather station reports.")
    await experiment.until_data(layout)
    circuits = list(wishes.circuits) or files.make_bitstreams(layout.folder / "circuits")
    outcome = await experiment.evaluate(layout, circuits, say, wishes.seconds)
    say(f"{len(outcome.results)} evaluations are done; their reservations are ended.")
    asked = await experiment.ask(layout)
    if wishes.once:
        await experiment.say_yes(layout, asked)
    else:
        say(f"The report waits for a yes: approve it at {panel}, or with")
        say(f"  fieldstation approvals approve {asked.id} --control {layout.url}")
        sys.stdout.write(f"ready {panel}\n")
        sys.stdout.flush()
    approved = await experiment.decided(layout, asked)
    checks: Sequence[Check] = ()
    if wishes.once:
        await site.end("program.telescope")  # nothing new is made, and what was made arrives
        await site.end("station.roof")
        checks = await experiment.settled(layout, outcome)
    layout.report.mkdir(exist_ok=True)
    told = [{"name": check.name, "ok": check.ok, "text": str(check)} for check in checks]
    (layout.report / "checks.json").write_text(json.dumps(told))
    report = Report(outcome.results, checks, await experiment.publish(layout, approved))
    show(report)
    if not wishes.once:
        say(f"Everything keeps running; the panel is at {panel} ; Ctrl-C ends it.")
        await asyncio.Event().wait()
    return report.ok
