"""The service on a real SQLite file: exactly once, an audit, a restart in between. No socket."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fieldstation.core.errors import FieldstationError, SchemaTooNewError
from fieldstation.fleet.store import Store
from fieldstation.flow import store as tables
from fieldstation.flow.desk import Desk
from fieldstation.flow.errors import ApprovalError, ApprovalUnknownError, BadRequestError
from fieldstation.flow.model import State, Word, command_action

ACTION = command_action("ls", pool="pi")


class Clock:
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def desk(tmp_path: Path, clock: Clock) -> AsyncIterator[Desk]:
    database = Store(f"sqlite:///{tmp_path}/control.db")
    desk = Desk(database, clock=clock)
    await desk.start()
    yield desk
    database.close()


async def test_a_request_is_stored_answered_used_and_audited(desk: Desk) -> None:
    asked = await desk.ask(title="Run", action=ACTION, requester="eve", reason="test")
    assert (await desk.listing(State.PENDING))[0] == asked
    await desk.answer(asked.id, "ada", Word.APPROVE, "cli", "fine")
    done = await desk.use(asked.id, asked.digest, "worker-1")
    await desk.note(asked.id, "worker-1", "finished", {"exit_code": 0})
    assert done.state is State.USED
    assert [(line["who"], line["what"]) for line in await desk.trail(asked.id)] == [
        ("eve", "asked"), ("ada", "approve"), ("worker-1", "use"), ("worker-1", "finished"),
    ]  # fmt: skip


async def test_of_many_answers_at_once_exactly_one_wins(desk: Desk) -> None:
    asked = await desk.ask(title="Run", action=ACTION, requester="eve")
    words = [Word.APPROVE, Word.DENY] * 10
    results = await asyncio.gather(
        *(desk.answer(asked.id, f"user{n}", word, "api") for n, word in enumerate(words)), return_exceptions=True
    )
    assert sum(not isinstance(r, BaseException) for r in results) == 1
    assert all(isinstance(r, ApprovalError) for r in results if isinstance(r, BaseException))
    assert len((await desk.get(asked.id)).answers) == 1


async def test_of_many_executors_exactly_one_may_run(desk: Desk) -> None:
    asked = await desk.ask(title="Run", action=ACTION, requester="eve")
    await desk.answer(asked.id, "ada", Word.APPROVE, "cli")
    results = await asyncio.gather(
        *(desk.use(asked.id, asked.digest, f"w{n}") for n in range(10)), return_exceptions=True
    )
    assert sum(not isinstance(r, BaseException) for r in results) == 1


async def test_a_restart_and_a_week_later_it_still_waits_and_then_closes(tmp_path: Path, clock: Clock) -> None:
    first = Store(f"sqlite:///{tmp_path}/control.db")
    desk = Desk(first, clock=clock)
    await desk.start()
    asked = await desk.ask(title="Run", action=ACTION, requester="eve", expires_in_s=8 * 86400)
    first.close()
    clock.now += timedelta(days=7)
    second = Store(f"sqlite:///{tmp_path}/control.db")
    desk = Desk(second, clock=clock)
    await desk.start()
    assert await desk.sweep() == []
    assert (await desk.get(asked.id)).is_open
    clock.now += timedelta(days=1)
    assert [a.id for a in await desk.sweep()] == [asked.id]
    with pytest.raises(ApprovalError, match="expired"):
        await desk.answer(asked.id, "ada", Word.APPROVE, "cli")
    second.close()


async def test_a_repeat_with_the_same_key_finds_the_first_request(desk: Desk) -> None:
    first = await desk.ask(title="Run", action=ACTION, requester="eve", key="run-7")
    again = await desk.ask(title="Run", action=ACTION, requester="eve", key="run-7")
    assert again.id == first.id
    with pytest.raises(BadRequestError, match="key"):
        await desk.ask(title="Run", action=command_action("rm x"), requester="eve", key="run-7")


async def test_waiting_ends_with_the_decision_and_costs_nothing_before(desk: Desk) -> None:
    asked = await desk.ask(title="Run", action=ACTION, requester="eve")
    waiting = asyncio.create_task(desk.wait(asked.id, 30))
    await asyncio.sleep(0)
    await desk.answer(asked.id, "ada", Word.DENY, "cli")
    assert (await waiting).state is State.DENIED
    other = await desk.ask(title="Run", action=ACTION, requester="eve")
    assert (await desk.wait(other.id, 0.01)).state is State.PENDING


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"title": "  "}, "title"),
        ({"expires_in_s": 0}, "expires_in_s"),
        ({"expires_in_s": float("nan")}, "expires_in_s"),
        ({"expires_in_s": 1e12}, "expires_in_s"),
        ({"quorum": 0}, "quorum"),
        ({"quorum": 3, "approvers": ["ada", "bob", "ada"]}, "quorum"),
        ({"action": {"x": float("nan")}}, "action"),
        ({"action": {"x": "y" * 200_000}}, "action"),
    ],
)
async def test_a_wrong_request_names_the_field_and_stores_nothing(desk: Desk, wrong: Any, field: str) -> None:
    with pytest.raises(BadRequestError, match=field):
        await desk.ask(**{"title": "Run", "action": ACTION, "requester": "eve"} | wrong)
    assert await desk.listing() == []


async def test_an_unknown_id_is_said(desk: Desk) -> None:
    for call in (desk.get("x"), desk.use("x", "y", "w"), desk.answer("x", "a", Word.DENY, "cli"), desk.trail("x")):
        with pytest.raises(ApprovalUnknownError, match="no approval x"):
            await call


async def test_a_newer_schema_is_refused(desk: Desk) -> None:
    await desk._database.transact(lambda c: c.execute(tables.schema.update().values(version=99)))
    with pytest.raises(SchemaTooNewError):
        await desk.start()


async def test_nothing_is_published_before_it_is_on_disk(desk: Desk) -> None:
    heard: list[str] = []
    desk.changes.subscribe(lambda approval: heard.append(approval.state))
    asked = await desk.ask(title="Run", action=ACTION, requester="eve")
    with pytest.raises(FieldstationError):
        await desk.use(asked.id, asked.digest, "w")
    await desk.cancel(asked.id, "eve")
    assert heard == ["pending", "cancelled"]
