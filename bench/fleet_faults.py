"""The fleet when something breaks: how soon a dead worker's holders know, what an outage costs, what fencing costs."""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rows import Row, main

from fieldstation.fleet.client.evaluation import PulseCountEvaluation
from fieldstation.fleet.client.session import FleetClient
from fieldstation.fleet.client.workers import Workers
from fieldstation.testing import ServerProcess, eventually, free_port, running
from fieldstation.testing.line import Line

BITSTREAM_BYTES = 104_090
UNFENCED = Path(__file__).parent / "limits" / "unfenced_worker.py"
FLEET = ("fieldstation", "--log-level", "error", "fleet")
CUT_S = 30.0


def bitstreams(folder: Path, count: int = 20) -> list[Path]:
    files = [folder / f"{number}.bin" for number in range(count)]
    for number, file in enumerate(files):
        file.write_bytes(random.Random(number).randbytes(BITSTREAM_BYTES))
    return files


async def free(control: str, amount: int) -> None:
    async with FleetClient(control, "looking") as client:

        async def all_free() -> bool:
            return await client.available() == amount

        await eventually(all_free, 60)


async def told_of_failure(control: str, start: Callable[[], ServerProcess], rounds: int = 3) -> Row:
    """From kill -9 of a worker to `failure` at the program that holds its devices."""
    took = []
    for _ in range(rounds):
        worker = await asyncio.to_thread(start)
        try:
            await free(control, 2)
            async with FleetClient(control, "holder") as client:
                heard = asyncio.Event()
                client.events.subscribe(lambda event, heard=heard: heard.set() if event.event == "failure" else None)
                await client.reserve(2)
                began = time.perf_counter()
                worker.kill()
                async with asyncio.timeout(60):
                    await heard.wait()
                took.append(time.perf_counter() - began)
        finally:
            await asyncio.to_thread(worker.kill)
    return Row(
        f"a worker is killed (-9): its holders hear `failure`, longest of {rounds}",
        f"{max(took):.1f} s",
        "153 to 195 s, today's control",
        None,
        "at most 5 s",
    )


async def cut_off(control: str, lines: tuple[Line, Line], files: list[Path]) -> Row:
    """A worker whose lines, to control and to clients, carry nothing for 30 s, in the middle of evaluations."""
    await free(control, 2)
    async with FleetClient(control, "holder") as client:
        serials = await client.reserve(2)
        asked = [PulseCountEvaluation(serials, files[number % len(files)]) for number in range(300)]
        results = []
        async for result in client.evaluate(asked):
            results.append(result)
            if len(results) == 50:
                for line in lines:
                    line.hold()
                await asyncio.sleep(CUT_S)
                for line in lines:
                    line.hold(False)
        gone = set(serials) - set(client.serials)
        lost = 2 * len(asked) - sum(not result.failed for result in results)
    return Row(
        f"a worker is cut off for {CUT_S:g} s: leases lost, results lost",
        f"{len(gone)}, {lost} of {2 * len(asked)}",
        "",
        None,
        "0, 0",
    )


@contextmanager
def unconfirmed() -> Iterator[None]:
    """Let clients of this process ask for no acknowledgement."""
    send = Workers.send

    async def plain(self: Workers, url: str, message: bytes, callback: object = None) -> None:
        await send(self, url, message, None)

    Workers.send = plain
    try:
        yield
    finally:
        Workers.send = send


async def cost(control: str, files: list[Path], rounds: int = 8, count: int = 300) -> Row:
    """Evaluations a second on two boards each of a worker with, and of one without, fencing and acknowledgements."""

    async def speed(client: FleetClient, serials: list[str]) -> float:
        asked = [PulseCountEvaluation(serials, files[number % len(files)]) for number in range(count)]
        began = time.perf_counter()
        results = [result async for result in client.evaluate(asked)]
        took = time.perf_counter() - began
        assert not [result.reason for result in results if result.failed]
        return len(results) / took

    await free(control, 4)
    async with FleetClient(control, "bench") as client:
        await client.reserve_serials(["F1", "F2", "U1", "U2"])

        async def fenced() -> float:
            return await speed(client, ["F1", "F2"])

        async def bare() -> float:
            with unconfirmed():
                return await speed(client, ["U1", "U2"])

        pairs = []
        for number in range(rounds + 1):
            if number % 2:  # who goes first may profit from it, or suffer
                with_it, without = await fenced(), await bare()
            else:
                without, with_it = await bare(), await fenced()
            if number:  # the first round warms both up
                pairs.append((with_it, without))
    return Row(
        "evaluations, two instant boards, with fencing and acknowledgements",
        f"{statistics.median(mine for mine, _ in pairs):.0f}/s",
        f"{statistics.median(plain for _, plain in pairs):.0f}/s, without both",
        statistics.median(mine / plain for mine, plain in pairs),
        "at least 0.9",
    )


def measure() -> list[Row]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        files = bitstreams(folder)
        database = f"sqlite:///{folder / 'fleet.db'}"
        control = stack.enter_context(running(*FLEET, "control", "--port", "0", "--database", database, cwd=folder))

        def words(name: str, address: str = control.url) -> list[str]:
            return ["worker", "--control", address, "--name", name, "--port", "0", "--dir", str(folder / name)]

        def doomed() -> ServerProcess:
            worker = ServerProcess([*FLEET, *words("doomed"), "--simulate", "2"], cwd=folder)
            worker.wait_ready()
            return worker

        rows = [asyncio.run(told_of_failure(control.url, doomed))]
        own = [word for serial in ("F1", "F2") for word in ("--serial", serial)]
        bare = [word for serial in ("U1", "U2") for word in ("--serial", serial)]
        with (
            running(*FLEET, *words("fenced"), *own, cwd=folder),
            running(sys.executable, UNFENCED, *FLEET[1:], *words("unfenced"), *bare, cwd=folder),
        ):
            rows.append(asyncio.run(cost(control.url, files)))
        rows.insert(1, outage(stack, control, folder, files))
        return rows


def outage(stack: ExitStack, control: ServerProcess, folder: Path, files: list[Path]) -> Row:
    """Run `cut_off` on a worker of its own, whose advertised address is a line's."""
    port = free_port()
    to_control, to_worker = Line(int(control.url.rpartition(":")[2])), Line(port)
    for line in (to_control, to_worker):
        stack.callback(line.close)
    words = ["worker", "--control", f"http://127.0.0.1:{to_control.port}", "--name", "far", "--port", str(port)]
    words += [
        "--dir",
        str(folder / "far"),
        "--serial",
        "X1",
        "--serial",
        "X2",
        "--url",
        f"http://127.0.0.1:{to_worker.port}",
    ]
    with running(*FLEET, *words, cwd=folder):
        return asyncio.run(cut_off(control.url, (to_control, to_worker), files))


if __name__ == "__main__":
    main("fleet_faults", measure)
