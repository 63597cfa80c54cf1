"""The fleet against its raw limits: an empty endpoint, a bare Socket.IO emit, a raw write to a pseudo-terminal."""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
import tty
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import socketio
from rows import Row, main

from fieldstation.fleet.client.evaluation import PulseCountEvaluation
from fieldstation.fleet.client.session import FleetClient
from fieldstation.testing import eventually, running

BITSTREAM_BYTES = 104_090
BOARDS = 4
BARE = Path(__file__).parent / "limits" / "bare_server.py"


async def requests_per_second(url: str, path: str, connections: int, seconds: float = 1.0) -> float:
    """Keep-alive GETs, written and read by hand so that the load generator costs little."""
    host, port = url.removeprefix("http://").split(":")
    request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()
    end = time.perf_counter() + seconds
    done = 0

    async def one() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection(host, int(port))
        while time.perf_counter() < end:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            assert head.startswith(b"HTTP/1.1 200"), head
            done += 1
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    return done / seconds


async def alternating(
    ours: Callable[[], Awaitable[float]], limit: Callable[[], Awaitable[float]], rounds: int
) -> tuple[float, float, float]:
    pairs = [(await ours(), await limit()) for _ in range(rounds)]
    return (
        statistics.median(mine for mine, _ in pairs),
        statistics.median(theirs for _, theirs in pairs),
        statistics.median(mine / theirs for mine, theirs in pairs),
    )


async def available(control: str, bare: str) -> list[Row]:
    rows = []
    for connections in (1, 8):
        ours, limit, ratio = await alternating(
            lambda n=connections: requests_per_second(control, "/available", n),
            lambda n=connections: requests_per_second(bare, "/empty", n),
            rounds=5,
        )
        what = f"GET /available, {connections} connection{'s' if connections > 1 else ''}"
        rows.append(Row(what, f"{ours:.0f}/s", f"{limit:.0f}/s, empty FastAPI endpoint", ratio, "at least 0.5"))
    return rows


async def cycles(control: str, seconds: float = 3.0) -> Row:
    """Four programs that reserve one board and end it, over and over; the boards are flashed in between."""
    end = time.perf_counter() + seconds
    done = 0

    async def one(session: aiohttp.ClientSession, name: str) -> None:
        nonlocal done
        while time.perf_counter() < end:
            asked = {"amount": 1, "name": name, "kind": "pulsecount", "args": {}, "wait_s": 5}
            async with session.post(f"{control}/reserve", json=asked) as answer:
                assert answer.status == 200, await answer.text()
                (row,) = await answer.json()
            async with session.post(f"{control}/end", json={"name": name, "serials": [row["serial"]]}) as answer:
                assert await answer.json() == [row["serial"]]
            done += 1

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(one(session, f"cycle-{number}") for number in range(BOARDS)))
    return Row("reserve + end cycles, four instant boards", f"{done / seconds:.0f}/s", "", None, "at least 40/s")


async def until_initialized(control: str, rounds: int = 25) -> Row:
    times = []
    async with FleetClient(control, "bench") as client:
        for _ in range(rounds):
            started = time.perf_counter()
            serials = await client.reserve(1, wait_s=10)
            times.append(time.perf_counter() - started)
            await client.end(serials)
    p50 = statistics.median(times) * 1e3
    return Row("reserve to `initialized`, p50", f"{p50:.0f} ms", "", None, "at most 60 ms")


def raw_terminal(count: int = 300) -> float:
    """Bitstreams a second through a pseudo-terminal: one process writes 512 bytes at a time, another reads."""
    master, slave = os.openpty()
    tty.setraw(slave)
    data = os.urandom(BITSTREAM_BYTES)
    child = os.fork()
    if child == 0:
        os.close(slave)
        left = count * BITSTREAM_BYTES
        while left:
            left -= len(os.read(master, 65536))
        os._exit(0)
    os.close(master)
    view = memoryview(data)
    started = time.perf_counter()
    for _ in range(count):
        at = 0
        while at < BITSTREAM_BYTES:
            at += os.write(slave, view[at : at + 512])
    os.waitpid(child, 0)
    took = time.perf_counter() - started
    os.close(slave)
    return count / took


async def evaluations(control: str, folder: Path, rounds: int = 3, count: int = 300) -> list[Row]:
    files = []
    for number in range(20):
        files.append(folder / f"{number}.bin")
        files[-1].write_bytes(random.Random(number).randbytes(BITSTREAM_BYTES))
    async with FleetClient(control, "bench") as client:
        serials = await client.reserve(2, wait_s=30)

        async def ours() -> float:
            asked = [PulseCountEvaluation(serials, files[number % 20]) for number in range(count)]
            started = time.perf_counter()
            results = [result async for result in client.evaluate(asked)]
            took = time.perf_counter() - started
            assert not [result.reason for result in results if result.failed]
            return len(results) / took

        async def limit() -> float:
            return raw_terminal()

        await ours()
        mine, theirs, ratio = await alternating(ours, limit, rounds)
        await client.end(serials)
        held = await client.reserve(4, wait_s=30)
        asked = [PulseCountEvaluation(held, file) for file in files * 5]
        last: dict[str, float] = {}
        gap = dict.fromkeys(held, 0.0)
        started = time.perf_counter()
        async for result in client.evaluate(asked):
            now = time.perf_counter()
            gap[result.serial] = max(gap[result.serial], now - last.get(result.serial, started))
            last[result.serial] = now
        took = time.perf_counter() - started
    return [
        Row(
            "evaluations of 104,090 bytes, two instant boards",
            f"{mine:.0f}/s",
            f"{theirs:.0f}/s, raw pseudo-terminal",
            ratio,
            "at least 0.4",
        ),
        Row(
            "100 bitstreams on each of 4 boards: longest wait of a board for its next result",
            f"{max(gap.values()) * 1e3:.0f} ms",
            f"{took:.2f} s for all",
            None,
            "no board starves",
        ),
    ]


async def broadcast(control: str, bare: str, clients: int = 50, rounds: int = 15) -> Row:
    """From the request that causes an event to its arrival at each of 50 clients."""

    async def times(url: str, path: str, auth: dict[str, str]) -> list[float]:
        arrived: asyncio.Queue[float] = asyncio.Queue()
        sockets = []
        for number in range(clients):
            socket = socketio.AsyncClient(handle_sigint=False)
            socket.on("event", lambda *_: arrived.put_nowait(time.perf_counter()))
            await socket.connect(url, auth={k: f"{v}-{number}" for k, v in auth.items()}, transports=["websocket"])
            sockets.append(socket)
        await asyncio.sleep(0.5)
        found = []
        async with aiohttp.ClientSession() as session:
            for _ in range(rounds):
                while not arrived.empty():
                    arrived.get_nowait()
                started = time.perf_counter()
                async with session.post(url + path, json={}) as answer:
                    assert answer.status == 200
                found += [await arrived.get() - started for _ in range(clients)]
                await asyncio.sleep(0.05)
        for socket in sockets:
            await socket.disconnect()
        return found

    def p95(values: list[float]) -> float:
        return statistics.quantiles(values, n=20)[-1] * 1e3

    ours = p95(await times(control, "/clear-workers", {"client_id": "watcher"}))
    limit = p95(await times(bare, "/emit", {}))
    return Row(
        "an event to 50 connected clients, p95",
        f"{ours:.1f} ms",
        f"{limit:.1f} ms, bare python-socketio",
        ours / limit,
        "at most 15 ms",
    )


async def all_free(control: str) -> None:
    async with FleetClient(control, "bench") as client:

        async def free() -> bool:
            return await client.available() == BOARDS

        await eventually(free, 30)


async def measure_all(control: str, bare: str, folder: Path) -> list[Row]:
    await all_free(control)
    return [
        *await available(control, bare),
        await cycles(control),
        await until_initialized(control),
        *await evaluations(control, folder),
        await broadcast(control, bare),
    ]


def measure() -> list[Row]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        fleet = ("fieldstation", "--log-level", "warning", "fleet")
        database = f"sqlite:///{folder / 'fleet.db'}"
        control = stack.enter_context(running(*fleet, "control", "--port", "0", "--database", database, cwd=folder))
        worker = ("worker", "--control", control.url, "--name", "bench", "--port", "0", "--dir", folder / "worker")
        stack.enter_context(running(*fleet, *worker, "--simulate", str(BOARDS), cwd=folder))
        bare = stack.enter_context(running(sys.executable, BARE))
        return asyncio.run(measure_all(control.url, bare.url, folder))


if __name__ == "__main__":
    main("fleet", measure)
