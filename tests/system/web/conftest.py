"""A lab for the browser: control and worker as processes, one headless Chromium for the module's tests."""

from __future__ import annotations

import json
import os
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from fieldstation.testing import chromium
from fieldstation.testing.processes import ServerProcess, free_port
from fieldstation.testing.waiting import wait_for

WAIT_MS = 60_000
DESK = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}


class Lab:
    """A control that can be killed and started again on its port, and workers."""

    def __init__(self, folder, stack, *options, env=None):
        self.folder = folder
        self.stack = stack
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.options = options
        self.env = env
        self.control = None

    def start(self):
        database = f"sqlite:///{self.folder / 'fleet.db'}"
        words = ("fieldstation", "fleet", "control", "--port", str(self.port), "--database", database, *self.options)
        self.control = ServerProcess(words, env=self.env, cwd=self.folder)
        self.stack.callback(self.control.stop)
        self.control.wait_ready(60)
        return self

    def worker(self, name="bench-1", boards=4):
        words = ("fieldstation", "fleet", "worker", "--control", self.url, "--name", name, "--port", "0")
        worker = ServerProcess([*words, "--simulate", str(boards), "--dir", self.folder / name], env=self.env)
        self.stack.callback(worker.stop)
        worker.wait_ready(60)
        return worker

    def get(self, path, token=None):
        return self._ask(urllib.request.Request(self.url + path), token)

    def post(self, path, body, token=None):
        headers = {"Content-Type": "application/json"}
        body = json.dumps(body).encode()
        return self._ask(urllib.request.Request(self.url + path, data=body, headers=headers, method="POST"), token)

    def _ask(self, request, token):
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def device(self, serial):
        return next(d for d in self.get("/api/fleet/devices") if d["serial"] == serial)

    def wait_free(self, count):
        wait_for(lambda: self.get("/available")["amount"] >= count, 60, what=f"{count} free boards")


@contextmanager
def lab_in(folder, *options, env=None):
    with ExitStack() as stack:
        yield Lab(folder, stack, *options, env=env)


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@contextmanager
def tab(browser, url, *, size=None, scheme="light", **options):
    """A page of its own context; what goes wrong on it fails the test."""
    context = browser.new_context(viewport=size or DESK, color_scheme=scheme, **options)
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    page.mishaps = []
    page.on("pageerror", lambda error: page.mishaps.append(str(error)))
    page.on(
        "request",
        lambda r: (
            page.mishaps.append(r.url)
            if not r.url.startswith((url, url.replace("http", "ws"), "data:", "blob:"))
            else None
        ),
    )
    page.lab_url = url
    try:
        yield page
    finally:
        context.close()
    assert page.mishaps == []


def visit(page, name=""):
    """Open a page of the panel and wait until it lives: its socket is open."""
    page.goto(f"{page.lab_url}/ui/{name}")
    page.locator(".page h1").wait_for()
    page.wait_for_function("window.socket?.connected")
    return page


def findings(page):
    """What axe calls serious or critical on the page as it is, a line each."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['html'][:200]} {node['any'][0]['message'] if node['any'] else ''}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


def picture(page, name, scheme, size):
    """Keep a picture of the page in the folder that FIELDSTATION_SCREENSHOTS names, if it names one."""
    folder = os.environ.get("FIELDSTATION_SCREENSHOTS")
    if folder:
        from PIL import Image

        stem = "station" if "?" in name else name or "overview"
        path = Path(folder) / f"panel-{stem}-{size}-{scheme}.png"
        page.screenshot(path=path, full_page=size == "phone")
        with Image.open(path) as image:
            image.convert("P", palette=Image.Palette.ADAPTIVE, colors=128).save(path, optimize=True)
