"""Kill what can be killed, cut what can be cut, and count what arrives."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from fieldstation.core.security import Role, TokenFile
from fieldstation.fleet.sim import answer
from fieldstation.testing import ServerProcess, eventually

pytestmark = pytest.mark.timeout(60)

A, B = "1111111111111111", "2222222222222222"


def right(holder, serial, *numbers):
    return {str(n): str(answer(holder.bitstream(n), serial)) for n in numbers}


async def refusal(holder, serial):
    return (await holder.evaluate(serial, 1))["error"]["code"]


async def test_a_worker_killed_in_the_middle_keeps_its_leases_and_repeated_evaluations_get_one_result_each(own):
    await own.worker.tell_boards(cmd="habits", measure_s=0.01)
    lease, token = await own.control.assign(A, B)
    async with own.hold(token) as holder:
        await holder.evaluate([A, B], *range(100))
        await holder.until_results(A, 10)
        await own.worker.kill()
    await own.restart()
    assert own.control.said("hello")[-1]["leases"] == [lease["id"]]
    async with own.hold(token) as again:
        again.events += holder.events
        await asyncio.gather(again.until("initialized", A), again.until("initialized", B))
        await eventually(lambda: all(own.control.devices.get(s, {}).get("state") == "reserved" for s in (A, B)))
        for serial in (A, B):
            # As our client does: what was not answered is sent again.
            missing = [n for n in range(100) if str(n) not in again.results(serial)]
            await eventually(lambda s=serial, m=missing: _accepted(again, s, m))
        for serial in (A, B):
            assert await again.until_results(serial, 100, 30) == right(again, serial, *range(100))


async def _accepted(holder, serial, numbers):
    return "error" not in await holder.evaluate(serial, *numbers)


async def test_results_nobody_fetched_survive_kill_9_also_those_of_a_reservation_that_has_ended(own):
    _, token = await own.control.assign(A)
    ended, old = await own.control.assign(B)
    async with own.hold(token, old) as holder:
        await asyncio.gather(holder.until("initialized", A), holder.until("initialized", B))
        holder.deaf = True
        await holder.evaluate([A, B], *range(25))
        held = Path(own.worker.folder / "state/worker.db")
        await eventually(lambda: _stored(held) == 50, 20, what="50 results on disk")
        await own.control.release(ended)
        await own.control.available(B)
        await own.worker.kill()
    await own.restart()
    async with own.hold(token, old) as again:
        for serial in (A, B):
            assert await again.until_results(serial, 25) == right(again, serial, *range(25))
        assert await refusal(again, B) == "ended"
    await eventually(lambda: _stored(held) == 0, what="delivered results to be gone from disk")


def _rows(path, query):
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return db.execute(query).fetchall()


def _stored(path):
    bodies = [json.loads(body) for (body,) in _rows(path, "SELECT body FROM event")]
    return sum(len(item.get("results", ())) for body in bodies for item in body["contents"])


async def test_a_published_client_is_told_failure_when_the_worker_was_killed(own):
    lease, token = await own.control.assign(A)
    async with own.hold(token, ours=False) as holder:
        await holder.until("initialized", A)
        await own.worker.kill()
    await own.restart()
    async with own.hold(token, ours=False) as again:
        await again.until("failure", A)
    (failed,) = await eventually(lambda: own.control.said("failed"))
    assert (failed["lease"], failed["serial"]) == (lease["id"], A)


async def test_evaluations_go_on_while_control_is_away_and_the_line_comes_back(own):
    _, token = await own.control.assign(A)
    port = own.control.server.port
    async with own.hold(token) as holder:
        await holder.until("initialized", A)
        await own.control.stop()
        await holder.evaluate(A, *range(20))
        assert await holder.until_results(A, 20) == right(holder, A, *range(20))
        back = type(own.control)(port)
        back.leases = own.control.leases
        async with back:
            await eventually(lambda: back.hellos == 1, 15)
            # Control counts sockets anew after each hello.
            await eventually(lambda: back.said("presence"))
            await holder.evaluate(A, 30)
            await eventually(lambda: "30" in holder.results(A))
            assert holder.of("failure") == []


async def test_after_reunion_leases_that_control_does_not_list_are_over_and_unknown_ones_begin(own):
    gone, old = await own.control.assign(A)
    port = own.control.server.port
    await own.control.stop()
    back = type(own.control)(port)
    back.devices = own.control.devices
    fresh, new = back.lease(B)
    back.leases = {fresh["id"]: fresh}
    async with back, own.hold(old) as before, own.hold(new) as after:
        # Control's answer to `hello` is what begins the lease; a request that comes before is refused, not kept.
        await after.until("initialized", B, 60)
        assert "error" not in await after.evaluate(B, 1)
        await after.until_results(B, 1, 60)
        assert await refusal(before, A) == "ended"
        # Control has no holder to tell.
        assert (await before.until("reservation end", A))["fence"] == gone["fences"][A]
        await back.available(A)
    assert gone["id"] not in back.leases


async def test_the_fencing_number_survives_kill_9(own):
    lease, _ = await own.control.assign(A)
    await own.control.release(lease)
    await own.control.available(A)
    await own.worker.kill()
    await own.restart()
    await own.control.available(A)
    assert own.control.devices[A]["fence"] == lease["fences"][A]
    stale, _ = own.control.lease(A)
    stale["fences"] = {A: lease["fences"][A] - 1}
    assert (await own.control.call("assign", stale))["refused"] == {A: "stale_fence"}


async def test_a_lease_that_runs_out_ends_without_control(own):
    _, token = await own.control.assign(A, for_s=1.5)
    async with own.hold(token) as holder:
        await holder.until("initialized", A)
        await own.control.stop()
        await holder.until("reservation end", A)
        assert await refusal(holder, A) == "ended"


async def test_a_worker_finds_the_control_that_leads(tmp_path, fleet_parts):
    fake_control, worker_process = fleet_parts
    async with fake_control() as follower, fake_control() as leader:
        follower.refuse = "not_leader"
        worker = worker_process(tmp_path, f"http://127.0.0.1:9,{follower.url},{leader.url}")
        try:
            await worker.start()
            await leader.available(A, B)
            assert follower.hellos == 0
        finally:
            await asyncio.to_thread(worker.server.stop)


async def test_a_full_disk_refuses_new_leases_and_leaves_the_old_ones_alone(tmp_path, fleet_parts):
    fake_control, worker_process = fleet_parts
    async with fake_control() as control:
        worker = worker_process(tmp_path, control.url)
        try:
            # Files of this process cannot grow beyond 100 KiB: to SQLite a disk that is full.
            limited = ("bash", "-c", f'ulimit -f 100; exec "{sys.executable}" -m fieldstation "$@"', "worker")
            await worker.start(prefix=limited)
            await control.available(A, B)
            _, token = await control.assign(A)
            lease, _ = control.lease(B, blob="x" * 200_000)
            refused = (await control.call("assign", lease))["refused"]
            assert "store" in refused[B]
            assert control.devices[B]["state"] == "available"
            async with type(control).holder(worker.url, token) as holder:
                await holder.evaluate(A, 1)
                await holder.until_results(A, 1)
        finally:
            await asyncio.to_thread(worker.server.stop)


# Ends


async def test_a_quarantine_outlives_the_worker_without_control_until_the_device_is_deleted_there(own):
    service = {"serial": A, "health": "quarantined", "reason": "smoke"}
    assert await own.control.call("service", service) == {"ok": True}
    held = Path(own.worker.folder / "state/worker.db")
    await eventually(lambda: _rows(held, "SELECT serial FROM out_of_service") == [(A,)])
    await own.worker.kill()
    await own.control.stop()
    await own.worker.start()
    async with aiohttp.ClientSession(own.worker.url) as session:

        async def health() -> dict[str, int]:
            async with session.get("/health") as answer:
                return dict((await answer.json())["health"])

        await eventually(async_equal(health, {"quarantined": 1, "ok": 1}), 20)
        async with session.post("/reboot", json={"serial": A}) as answer:
            assert answer.status == 200
        assert await health() == {"quarantined": 1, "ok": 1}
        async with session.post("/delete", json={"serial": A}) as answer:
            assert answer.status == 200
        await eventually(async_equal(health, {"ok": 2}), 20)


def async_equal(ask, expected):
    async def same() -> bool:
        return await ask() == expected

    return same


async def test_a_graceful_shutdown_waits_for_holders_and_ends_the_process(own):
    lease, token = await own.control.assign(A)
    async with own.hold(token) as holder, own.hold(client="local_graceful_shutdown_1", ours=False) as asker:
        await holder.until("initialized", A)
        await asker.sio.emit("graceful_shutdown", "")
        await eventually(lambda: "graceful_shutdown_initilized" in asker.notices)
        await eventually(lambda: own.control.said("draining"))
        other, _ = own.control.lease(B)
        assert "shutting down" in (await own.control.call("assign", other))["refused"][B]
        await holder.evaluate(A, 1)
        await holder.until_results(A, 1)
        assert "shutdown_complete" not in asker.notices
        await own.control.release(lease)
        await eventually(lambda: "shutdown_complete" in asker.notices)
    assert await asyncio.to_thread(own.worker.server.wait) == 0


async def test_beyond_loopback_only_an_operator_shuts_a_worker_down(tmp_path, fleet_parts):
    fake_control, worker_process = fleet_parts
    tokens = TokenFile(tmp_path / "tokens.json")
    user, operator = tokens.add("ada", Role.USER), tokens.add("bob", Role.OPERATOR)
    async with fake_control() as control:
        worker = worker_process(tmp_path, control.url)
        await worker.start("--host", "0.0.0.0", "--tokens", tokens.path, "--url", "http://bench:8081")
        try:
            await eventually(lambda: control.hellos)
            assert control.said("hello")[0]["url"] == "http://bench:8081"
            for name, token in (("", ""), ("ada", user)):
                url = worker.url.replace("://", f"://{name}:{token}@") if token else worker.url
                async with control.holder(url, ours=False) as stranger:
                    await stranger.sio.emit("graceful_shutdown", "")
                    assert (await stranger.until("refused"))["reason"] == "forbidden"
            async with control.holder(worker.url.replace("://", f"://bob:{operator}@"), ours=False) as boss:
                await boss.sio.emit("graceful_shutdown", "")
                await eventually(lambda: "shutdown_complete" in boss.notices)
            assert await asyncio.to_thread(worker.server.wait) == 0
        finally:
            await asyncio.to_thread(worker.server.stop)


async def test_sigterm_ends_the_worker_and_its_boards(own):
    boards = _children(own.worker.server.pid)
    assert boards
    assert await asyncio.to_thread(own.worker.server.stop) == 0
    await eventually(lambda: not any(map(_alive, boards)))


async def test_boards_do_not_outlive_a_killed_worker(own):
    boards = _children(own.worker.server.pid)
    os.kill(own.worker.server.pid, signal.SIGKILL)
    await eventually(lambda: not any(map(_alive, boards)))


def _children(pid):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=True).stdout
    return [int(word) for word in found.split()]


def _alive(pid):
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--driver", "nothing"], "There is no driver named 'nothing'"),
        (["--host", "0.0.0.0"], "Refusing to listen on 0.0.0.0"),
        (["--url", "ftp://x"], "url"),
        (["--simulate", "1", "--port", "{taken}"], "Cannot listen on 127.0.0.1 port"),
        (["--simulate", "1", "--dir", "/proc/nowhere"], "The database /proc/nowhere/worker.db cannot be used"),
    ],
)
def test_a_worker_that_cannot_start_says_why_in_one_sentence(tmp_path, options, sentence):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        words = [word.format(taken=taken.getsockname()[1]) for word in options]
        if "--dir" not in words:
            words += ["--dir", str(tmp_path)]
        if "--port" not in words:
            words += ["--port", "0"]
        server = ServerProcess(["fieldstation", "fleet", "worker", *words])
        code = server.wait(30)
    assert code == 1
    (line,) = server.output.strip().splitlines()
    assert sentence in line


def test_a_store_of_a_newer_schema_is_left_alone(tmp_path):
    import sqlite3

    path = tmp_path / "worker.db"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    server = ServerProcess(["fieldstation", "fleet", "worker", "--simulate", "1", "--port", "0", "--dir", tmp_path])
    assert server.wait(30) == 1
    assert "schema 99, newer than this version knows" in server.output
