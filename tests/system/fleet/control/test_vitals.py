"""/health and /metrics, the audit log's completeness, its bounds and its age."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import select, update

from fieldstation.core.errors import StoreError
from fieldstation.core.security import Role
from fieldstation.fleet.control import record, upkeep
from fieldstation.fleet.store import Store, ledger, tables
from fieldstation.testing import eventually

pytestmark = pytest.mark.timeout(90)
sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)

DEADLINE_S = 60


async def metrics(api) -> dict[str, float]:
    """Every sample: its name, and the values of its labels, to its value."""
    status, text = await api.ask("GET", "/metrics")
    assert status == 200
    return {
        " ".join([sample.name.removeprefix("fieldstation_fleet_"), *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@sqlite
async def test_health_and_metrics_tell_what_control_holds(api, control, worker, listeners):
    await listeners(control.url, "bob")
    await api.reserve(3, name="bob")
    await api.post("/end", name="bob", serials=["A1"])
    await eventually(lambda: free(api, 2), DEADLINE_S)
    assert (await api.post("/reserve", amount=9, name="eve", kind="pulsecount", args={}))[0] == 409
    assert (await api.post("/reserve", amount=4, name="eve", kind="pulsecount", args={}, wait_s=0))[0] == 202
    status, health = await api.ask("GET", "/health")
    assert status == 200
    shown = {key: health[key] for key in ("ok", "leads", "database", "devices", "workers", "reservations", "waiting")}
    assert shown == {
        "ok": True,
        "leads": True,
        "database": "ok",
        "devices": {"available": 2, "reserved": 2},
        "workers": {"online": 1},
        "reservations": 2,
        "waiting": 1,
    }
    found = await metrics(api)
    for name, value in {
        "leads": 1,
        "reservations": 2,
        "leases": 1,
        "waiting": 1,
        "sockets": 1,
        "reserved_devices_total": 3,
        "ended_devices_total ended": 1,
        "refused_requests_total not_enough_devices": 1,
        "devices ok available": 2,
        "devices ok reserved": 2,
        "workers online": 1,
    }.items():
        assert found[name] == value, name
    assert found["commits_total"] > 0
    assert found["process_resident_memory_bytes"] > 0


async def free(api, amount: int) -> bool:
    states = await api.states()
    return sum(state == "available" for state in states.values()) == amount


@sqlite
async def test_where_tokens_are_needed_a_stranger_learns_only_whether_it_is_well(database, start, apis):
    store = Store(database)
    store.open()
    token = store.add_token("ann", Role.VIEWER)
    store.close()
    control = await start(require_tokens=True)
    api = apis(control.url)
    status, health = await api.ask("GET", "/health")
    assert (status, set(health)) == (200, {"ok", "leads", "epoch"})
    assert (await api.ask("GET", "/metrics"))[0] == 401
    bearer = {"Authorization": f"Bearer {token}"}
    assert "devices" in (await api.ask("GET", "/health", headers=bearer))[1]
    assert (await api.ask("GET", "/metrics", headers=bearer))[0] == 200
    assert (await api.ask("GET", "/health", headers={"Authorization": "Bearer fst_wrong"}))[0] == 401


@sqlite
async def test_a_database_that_fails_makes_it_unwell_and_the_audit_log_stays_bounded(api, control, worker, monkeypatch):
    inside = control.control
    await inside.record.flush()
    monkeypatch.setattr(record, "AUDIT_KEPT", 50)

    async def away(work):
        raise StoreError(path="test", problem="it is away")

    monkeypatch.setattr(control.service.store, "read", away)
    for number in range(500):
        inside.record.audit(ledger.Entry("worker online", f"w{number}"))
    with pytest.raises(StoreError):
        await inside.record.flush()
    assert inside.record.unwritten == 50
    status, health = await api.ask("GET", "/health")
    assert (status, health["ok"]) == (503, False)
    assert "it is away" in health["database"]
    found = await metrics(api)
    assert (found["audit_lost_total"], found["audit_unwritten"]) == (450, 50)
    assert found["commit_failures_total"] >= 1
    monkeypatch.undo()
    await inside.record.flush()
    rows = (await api.ask("GET", "/api/fleet/events?limit=1000"))[1]
    assert [row["target"] for row in rows if row["action"] == "audit lost"] == ["450"]
    assert sum(row["action"] == "worker online" and row["target"].startswith("w") for row in rows) == 50
    assert (await api.ask("GET", "/health"))[1]["ok"] is True


@sqlite
async def test_every_change_of_state_is_in_the_audit_log_and_routine_is_not(api, control, worker):
    await worker.report("A1", state="broken", health="broken", reason="it fell")
    await worker.report("A1", state="available", health="ok", reason="")
    await worker.say("gone", {"serial": "A2"})
    await api.reserve(1, name="bob")
    await api.post("/endall", name="bob")
    await eventually(lambda: free(api, 3), DEADLINE_S)
    rows = (await api.ask("GET", "/api/fleet/events?limit=1000"))[1][::-1]
    told = [(row["action"], row["target"]) for row in rows]
    assert told[:2] == [("leader", control.control.leadership.name), ("worker online", "bench")]
    assert told[2:6] == [("device added", f"A{number}") for number in (1, 2, 3, 4)]
    assert told[6:] == [
        ("device state", "A1"),
        ("device state", "A1"),
        ("device gone", "A2"),
        ("reserve", told[9][1]),
        ("end", told[9][1]),
    ]
    assert rows[6]["detail"] == "broken, broken: it fell"


async def test_what_is_older_than_a_year_is_forgotten_from_the_beginning_and_the_log_says_so(
    start, database, workers, apis, monkeypatch
):
    monkeypatch.setattr(upkeep, "PRUNE_EVERY_S", 0.1)
    control = await start()
    await workers(control.url)
    api = apis(control.url)
    await api.reserve(1, name="old")
    await api.post("/endall", name="old")
    await api.reserve(1, name="held")
    await control.control.record.flush()
    store = control.service.store
    long_ago = datetime.now(UTC) - timedelta(days=400)

    def age(connection) -> int:
        connection.execute(update(tables.audit).values(at=long_ago))
        connection.execute(update(tables.lease).values(taken_at=long_ago))
        connection.execute(update(tables.lease).where(tables.lease.c.ended_at.is_not(None)).values(ended_at=long_ago))
        return max(connection.execute(select(tables.audit.c.id)).scalars())

    newest = await store.transact(age)
    await api.post("/extendall", name="held")

    def oldest(connection) -> int:
        return min(connection.execute(select(tables.audit.c.id)).scalars())

    async def pruned() -> bool:
        return await store.transact(oldest) > newest

    await eventually(pruned, DEADLINE_S)
    rows = (await api.ask("GET", "/api/fleet/events"))[1]
    assert {row["action"] for row in rows} <= {"extend", "audit pruned"}
    assert next(row for row in rows if row["action"] == "audit pruned")["target"].endswith(f"-{newest}")
    [lease] = (await store.transact(ledger.read)).leases
    assert lease.holder.client == "held"

    def leases(connection) -> int:
        return len(connection.execute(select(tables.lease.c.id)).all())

    async def one_left() -> bool:
        return await store.transact(leases) == 1

    await eventually(one_left, DEADLINE_S)


@sqlite
async def test_a_repeated_request_whose_answer_the_last_leader_lost_takes_nothing_twice(start, workers, apis):
    """Control is stopped after it has granted a ticket; the client asks the next one with the same ticket."""
    control = await start()
    worker = await workers(control.url)
    want = {"amount": 2, "name": "bob", "ticket": "mine", "wait_s": 5, "kind": "pulsecount", "args": {}}
    _, first = await apis(control.url).post("/reserve", **want)
    await worker.close()
    await control.stop()
    control = await start()
    await workers(control.url, devices=worker.devices)
    api = apis(control.url)
    status, second = await api.post("/reserve", **want)
    assert status == 200
    held = (await api.get("/api/fleet/reservations"))[1]
    assert sorted(row["serial"] for row in held) == sorted(row["serial"] for row in second)
    fences = {row["serial"]: row["fence"] for row in first}
    assert all(row["fence"] > fences.get(row["serial"], 0) for row in second)
