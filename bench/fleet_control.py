"""Control under competition: a leader that is killed, many clients for few boards, many boards.

With `--slow` (as `make bench` runs it) the competition lasts 60 s and the leader is killed four times.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from rows import Row, main
from sqlalchemy import select

from fieldstation.fleet.store import Store, tables
from fieldstation.testing import ServerProcess, free_port, postgres_server, running

SLOW = "--slow" in sys.argv[1:]
WORKERS = Path(__file__).parent / "limits" / "line_workers.py"
WANT: dict[str, Any] = {"kind": "pulsecount", "args": {}}
DEADLINE_S = 60.0


def control(database: str, port: int = 0) -> ServerProcess:
    command = ("fieldstation", "--log-level", "warning", "fleet", "control", "--port", str(port))
    server = ServerProcess([*command, "--database", database])
    server.wait_ready(DEADLINE_S)
    return server


@contextmanager
def controlled(database: str, workers: int, devices: int) -> Iterator[str]:
    """A control with so many workers; yields its address."""
    server = control(database)
    try:
        with running(sys.executable, WORKERS, server.url, str(workers), str(devices), deadline_s=DEADLINE_S):
            yield server.url
    finally:
        server.stop()


# A leader is killed


async def take_over(database: str, rounds: int) -> list[Row]:
    ports = (free_port(), free_port())
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    servers = {url: await asyncio.to_thread(control, database, port) for url, port in zip(urls, ports, strict=True)}
    leads, reserves = [], []
    both = ",".join(urls)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(1)) as session:
        with running(sys.executable, WORKERS, both, "4", "5", deadline_s=DEADLINE_S):
            for number in range(rounds):
                [old] = [url for url in urls if await leading(session, url)]
                [new] = [url for url in urls if url != old]
                started = time.perf_counter()
                await asyncio.to_thread(servers[old].kill)
                while not await leading(session, new):
                    await asyncio.sleep(0.01)
                leads.append(time.perf_counter() - started)
                asked = {"amount": 1, "name": f"r{number}", **WANT}
                while True:
                    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                        async with session.post(new + "/reserve", json=asked) as answer:
                            if answer.status == 200:
                                break
                    await asyncio.sleep(0.01)
                reserves.append(time.perf_counter() - started - leads[-1])
                servers[old] = await asyncio.to_thread(control, database, ports[urls.index(old)])
    for server in servers.values():
        await asyncio.to_thread(server.stop)
    times = f"{rounds} times" if rounds > 1 else "once"
    return [
        Row(f"kill -9 of the leader, {times}: the other leads (worst)", f"{max(leads):.1f} s", "", None, "within 5 s"),
        Row("and a reservation is granted (worst)", f"{max(reserves):.2f} s later", "", None, "within 1 s"),
    ]


async def leading(session: aiohttp.ClientSession, url: str) -> bool:
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        async with session.get(url + "/health") as answer:
            return bool((await answer.json())["leads"])
    return False


# Many clients for few boards


@dataclass
class Competition:
    """What the clients saw."""

    end: float
    grants: Counter[int] = field(default_factory=Counter)
    fences: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    holder: dict[str, int] = field(default_factory=dict)
    doubled: int = 0
    lost: int = 0

    async def client(self, session: aiohttp.ClientSession, url: str, number: int) -> None:
        name = f"client-{number:03d}"
        while time.perf_counter() < self.end:
            row = await self.take(session, url, name)
            serial = row["serial"]
            self.doubled += serial in self.holder or row["fence"] in self.fences[serial]
            self.holder[serial] = number
            self.fences[serial].append(row["fence"])
            self.grants[number] += 1
            await asyncio.sleep(0.05)  # what a short evaluation takes
            self.lost += self.holder.pop(serial) != number
            async with session.post(url + "/end", json={"name": name, "serials": [serial]}) as answer:
                self.lost += await answer.json() != [serial]

    @staticmethod
    async def take(session: aiohttp.ClientSession, url: str, name: str) -> dict[str, Any]:
        asked: dict[str, Any] = {"amount": 1, "name": name, "wait_s": 15, **WANT}
        while True:
            async with session.post(url + "/reserve", json=asked) as answer:
                body = await answer.json()
                if answer.status == 200:
                    [row] = body
                    return dict(row)
                assert answer.status == 202, body
                asked["ticket"] = body["ticket"]


async def compete(url: str, database: str, clients: int, seconds: float) -> list[Row]:
    seen = Competition(time.perf_counter() + seconds)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(seen.client(session, url, number) for number in range(clients)))
        async with session.get(url + "/api/fleet/reservations") as answer:
            left = await answer.json()
    counts = [seen.grants[number] for number in range(clients)]
    total = sum(counts)
    jain = total**2 / (clients * sum(count**2 for count in counts))
    store = Store(database)
    written = store.transact_now(lambda c: len(c.execute(select(tables.lease.c.id)).all()))
    store.close()
    wrong = seen.doubled + seen.lost + len(left) + abs(written - total)
    assert wrong == 0, (seen.doubled, seen.lost, left, written, total)
    what = f"{clients} clients compete for 20 boards for {seconds:.0f} s"
    return [
        Row(f"{what}: lost or doubled", f"{wrong} of {total}", "", None, "none"),
        Row(f"{what}: fairness (Jain)", f"{jain:.3f}", f"{min(counts)} to {max(counts)} each", None, "at least 0.9"),
    ]


# Many boards


async def reserve_times(session: aiohttp.ClientSession, url: str, count: int) -> list[float]:
    times = []
    for _ in range(count):
        started = time.perf_counter()
        async with session.post(url + "/reserve", json={"amount": 1, "name": "grow", **WANT}) as answer:
            assert answer.status == 200, await answer.text()
            [row] = await answer.json()
        times.append(time.perf_counter() - started)
        async with session.post(url + "/end", json={"name": "grow", "serials": [row["serial"]]}) as answer:
            assert answer.status == 200
    return times


async def grow(kind: str, small: str, large: str, rounds: int) -> Row:
    ours: list[float] = []
    limit: list[float] = []
    async with aiohttp.ClientSession() as session:
        for url in (small, large):
            await reserve_times(session, url, 20)
        for _ in range(rounds):
            limit += await reserve_times(session, small, 40)
            ours += await reserve_times(session, large, 40)

    def p95(times: list[float]) -> float:
        return statistics.quantiles(times, n=20)[-1] * 1e3

    return Row(
        f"reserve p95 on {kind}, 1,000 devices on 50 workers",
        f"{p95(ours):.1f} ms",
        f"{p95(limit):.1f} ms, 10 devices on 1 worker",
        p95(ours) / p95(limit),
        "at most 3",
    )


def measure() -> list[Row]:
    rows: list[Row] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        postgres = stack.enter_context(postgres_server())
        rows += asyncio.run(take_over(postgres.new_database(), 4 if SLOW else 1))
        database = f"sqlite:///{folder / 'competition.db'}"
        with controlled(database, 4, 5) as url:
            rows += asyncio.run(compete(url, database, 200, 60.0 if SLOW else 5.0))
        for kind, new in (
            ("SQLite", lambda size: f"sqlite:///{folder / size}.db"),
            ("PostgreSQL", lambda size: postgres.new_database()),
        ):
            with controlled(new("small"), 1, 10) as small, controlled(new("large"), 50, 20) as large:
                rows.append(asyncio.run(grow(kind, small, large, 6 if SLOW else 3)))
    return rows


if __name__ == "__main__":
    main("fleet control", measure)
