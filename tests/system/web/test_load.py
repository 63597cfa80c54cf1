"""The panel for a long time and for many: memory stays, and everybody goes on seeing."""

from __future__ import annotations

import asyncio
import json
import time

import psutil
import pytest
import websockets
from tests.system.web.conftest import lab_in, tab, visit

from fieldstation.core.blocking import Portal
from fieldstation.testing import ServerProcess

pytestmark = [pytest.mark.soak, pytest.mark.needs("chromium"), pytest.mark.timeout(1800)]

PAGES = ("", "devices", "streams", "approvals", "audit")
SETTLE_S = 75  # pages that are closed are forgotten within a minute


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    camera = ServerProcess(["fieldstation", "stream", "serve", "--port", "0", "--simulate"])
    try:
        address = camera.wait_ready(60).partition("//")[2]
        (folder / "site.toml").write_text(f'[web.streams]\ncamera = "{address}"\n')
        with lab_in(folder, "--config", folder / "site.toml") as made:
            made.start()
            made.worker()
            made.wait_free(4)
            yield made
    finally:
        camera.stop()


def memory_mb(lab):
    return psutil.Process(lab.control.pid).memory_info().rss / 1e6


def test_a_working_day_of_page_loads_does_not_grow_the_control(browser, lab):
    """A person who opens a page every minute of eight hours; all changes of the fleet go on meanwhile."""

    def load(count):
        with tab(browser, lab.url) as page:
            for number in range(count):
                visit(page, PAGES[number % len(PAGES)])
                if number % 10 == 0:
                    lab.post("/reserve", {"amount": 1, "name": "day", "kind": "pulsecount", "args": {}})
                    lab.post("/endall", {"name": "day"})
                    lab.wait_free(1)
        time.sleep(SETTLE_S)
        return memory_mb(lab)

    warm = load(160)
    after = load(320)
    assert after - warm < 15, f"{warm:.0f} MB grew to {after:.0f} MB"


async def look(url, end, stalled):
    """Return how many bursts were drawn; a stalled viewer reads one and then nothing more."""
    bursts = 0
    async with websockets.connect(url, max_size=None, compression=None) as socket:
        while time.monotonic() < end:
            message = await socket.recv()
            if isinstance(message, str) and json.loads(message).get("drawn"):
                bursts += 1
                if stalled:
                    await asyncio.sleep(end - time.monotonic())
                    break
                await socket.send("more")
    return bursts


def test_a_hundred_viewers_half_of_them_stalled_and_the_others_go_on_seeing(lab):
    url = lab.url.replace("http", "ws") + "/ui/live/camera"

    async def crowd():
        end = time.monotonic() + 60
        return await asyncio.gather(*(look(url, end, stalled=number % 2 == 0) for number in range(100)))

    before = memory_mb(lab)
    drawn = Portal().call(crowd())
    assert min(drawn[1::2]) > 60
    assert memory_mb(lab) - before < 30
    assert lab.get("/available")["amount"] == 4
