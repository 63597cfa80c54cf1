"""The panel: first page served and painted, memory, and a hundred viewers of live frames."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import struct
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil
import websockets
from rows import Row, main

from fieldstation.core.blocking import Portal
from fieldstation.site.supervise import read_status
from fieldstation.testing import ServerProcess, chromium, free_port

VIEWERS = int(os.environ.get("BENCH_WEB_VIEWERS", "100"))
PAGES = ("", "devices", "stations", "streams", "pipelines", "approvals", "audit")
SECONDS = float(os.environ.get("BENCH_WEB_S", "15"))


def row(what: str, ours: str, promise: str = "") -> Row:
    return Row(what, ours, "", promise=promise)


def served(url: str) -> float:
    begun = time.perf_counter()
    with urllib.request.urlopen(url, timeout=30) as answer:
        answer.read()
    return time.perf_counter() - begun


def memory_mb(pid: int) -> float:
    return psutil.Process(pid).memory_info().rss / 1e6


async def viewer(url: str, end: float) -> tuple[int, int]:
    """Look until `end` as a browser would; returns pictures and the bursts they came in."""
    pictures = bursts = 0
    async with websockets.connect(url, max_size=None, compression=None) as socket:
        while time.monotonic() < end:
            message = await socket.recv()
            if isinstance(message, bytes):
                pictures += 1
                assert json.loads(message[4 : 4 + struct.unpack_from("<I", message)[0]])["shape"]
            elif json.loads(message).get("drawn"):
                bursts += 1
                await socket.send("more")
    return pictures, bursts


async def crowd(url: str, pid: int) -> tuple[float, float, float]:
    """Return CPU seconds a second of the control, bursts a second of each viewer, pictures a second of all."""
    end = time.monotonic() + SECONDS
    looking = [asyncio.create_task(viewer(url, end)) for _ in range(VIEWERS)]
    await asyncio.sleep(3)
    before, then = sum(psutil.Process(pid).cpu_times()[:2]), time.monotonic()
    counts = await asyncio.gather(*looking)
    used = sum(psutil.Process(pid).cpu_times()[:2]) - before
    return (
        used / (time.monotonic() - then),
        statistics.median(bursts for _, bursts in counts) / SECONDS,
        sum(pictures for pictures, _ in counts) / SECONDS,
    )


def painted(url: str) -> float:
    """Seconds from the request to the largest paint, in a browser with an empty cache; the median of five."""
    found = []
    with chromium() as browser:
        for _ in range(5):
            context = browser.new_context()
            page = context.new_page()
            page.goto(url)
            page.locator(".tiles strong").first.wait_for()
            script = "() => performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000"
            found.append(page.evaluate(script))
            context.close()
    return statistics.median(found)


def measure() -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        camera = ServerProcess(["fieldstation", "stream", "serve", "--port", "0", "--simulate"])
        try:
            address = camera.wait_ready(60).partition("//")[2]
            (folder / "site.toml").write_text(f'[web.streams]\ncamera = "{address}"\n')
            words = ["fieldstation", "fleet", "control", "--port", str(free_port()), "--config", folder / "site.toml"]
            database = ("--database", f"sqlite:///{folder / 'f.db'}")
            # A control finds its database migrated at all starts but the first.
            ServerProcess(["fieldstation", "fleet", "migrate", *database]).wait(60)
            control = ServerProcess([*words, *database])
            try:
                found = measured(control.wait_ready(60), control.pid)
            finally:
                control.stop()
        finally:
            camera.stop()
    return found + all_sources()


def all_sources() -> list[Row]:
    """Control of the demonstration, which has every kind of source: every page open in a browser, and the crowd."""
    with tempfile.TemporaryDirectory() as name:
        demo = ServerProcess(["fieldstation", "demo", "--port", "0", "--dir", name])
        try:
            url = demo.wait_ready(120)
            pid = int(str(read_status(Path(name) / "state")["fleet.control"]["pid"]))
            with chromium() as browser:
                for page in PAGES:
                    opened = browser.new_page()
                    opened.goto(f"{url}/{page}")
                    opened.wait_for_function("window.socket?.connected")
                cpu, each, _ = Portal().call(crowd(f"{url.replace('http', 'ws')}/live/camera", pid))
                memory = memory_mb(pid)
        finally:
            demo.stop(60)
    return [
        row(
            f"all sources on, every page open, {VIEWERS} viewers: control's memory", f"{memory:.0f} MB", "below 150 MB"
        ),
        row("the same: control's CPU, pictures drawn by each viewer", f"{cpu * 100:.0f} % of a core, {each:.1f}/s"),
    ]


def measured(url: str, pid: int) -> list[Row]:
    quiet = memory_mb(pid)
    first = served(f"{url}/ui/")
    again = statistics.median(served(f"{url}/ui/") for _ in range(20))
    opened = memory_mb(pid)
    paint = painted(f"{url}/ui/")
    cpu, each, everyone = asyncio.run(crowd(url.replace("http", "ws") + "/ui/live/camera", pid))
    crowded = memory_mb(pid)
    return [
        row("first page, served: the panel opens for it", f"{first * 1e3:.0f} ms"),
        row("first page, served: later", f"{again * 1e3:.0f} ms", "below 100 ms"),
        row("first page, painted in a browser with an empty cache", f"{paint:.2f} s", "below 1.5 s"),
        row("control's memory, panel not opened / open", f"{quiet:.0f} / {opened:.0f} MB", "below 150 MB"),
        row(f"control's memory, {VIEWERS} viewers of live frames", f"{crowded:.0f} MB", "below 150 MB"),
        row(f"{VIEWERS} viewers: pictures drawn by each", f"{each:.1f}/s", "10/s"),
        row(f"{VIEWERS} viewers: control's CPU", f"{cpu * 100:.0f} % of a core for {everyone:.0f} pictures/s"),
    ]


if __name__ == "__main__":
    main("web", measure)
