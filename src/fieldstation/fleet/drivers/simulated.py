"""Boards played by a child process on pseudo-terminals, reached exactly as real ones are."""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from fieldstation.fleet import uf2
from fieldstation.fleet.driver import PARTITION, TTY, Driver, Hotplug, Node, Timing
from fieldstation.fleet.errors import FleetError
from fieldstation.fleet.port import Port, touch
from fieldstation.fleet.states import pulsecount, variance
from fieldstation.fleet.twin.evaluate import find_tools
from fieldstation.fleet.twin.settings import TwinSettings


class SimulatorGoneError(FleetError):
    """The process that plays the simulated boards ended (exit code {code}); restart the worker."""


class BoardSettings(BaseModel):
    """The table `[simulated]` of a worker's configuration."""

    model_config = ConfigDict(extra="forbid")

    boards: int = Field(default=4, ge=0, le=1000, description="How many boards to play.")
    serials: list[str] = Field(default=[], description="Their serials; by default sixteen equal digits each.")
    boot_s: float = Field(default=0.0, ge=0, description="Seconds a board takes to restart.")
    measure_s: float = Field(default=0.0, ge=0, description="Seconds from the last byte of a bitstream to its result.")
    watchdog_s: float = Field(default=2.0, gt=0, description="Seconds a board waits for a whole bitstream.")
    answers: Literal["bytes", "twin"] = Field(
        default="bytes", description="What answers a bitstream: a hash of its bytes, or the digital `twin`."
    )
    twin: TwinSettings = Field(default_factory=TwinSettings, description="A table of settings for the twin.")
    socket: str | None = Field(default=None, description="Unix socket that takes plug, unplug and fault commands.")
    journal: str | None = Field(
        default=None, description="File to which a line is added for each bitstream that a board measures."
    )
    flash_s: float = Field(default=10.0, gt=0, description="Seconds a flash may take.")
    test_s: float = Field(default=5.0, gt=0, description="Seconds the default firmware has to answer.")
    answer_s: float = Field(default=5.0, gt=0, description="Seconds a board has to answer a bitstream.")
    replug_s: float = Field(default=5.0, gt=0, description="Seconds a reserved board that vanished has to come back.")
    gone_s: float = Field(default=0.5, ge=0, description="Seconds after which a board without nodes is forgotten.")
    retry_s: float = Field(default=5.0, gt=0, description="Seconds before a broken board is tried again.")


def default_serials(count: int) -> list[str]:
    """Return `count` serials: 1111111111111111, 2222222222222222, ..., then numbers with leading zeros."""
    return [f"{n:X}" * 16 if n < 16 else f"{n:016d}" for n in range(1, count + 1)]


class SimulatedDriver(Driver):
    """The driver `simulated`. Firmware is a placeholder file, which a simulated board knows by its content."""

    kinds: ClassVar[tuple[str, ...]] = (pulsecount.KIND, variance.KIND)
    Settings = BoardSettings

    def __init__(self, settings: BoardSettings | None = None) -> None:
        self.settings = settings or BoardSettings()
        self._process: asyncio.subprocess.Process | None = None
        s = self.settings
        answer_s = s.answer_s + s.measure_s
        if s.answers == "twin":
            find_tools()
            # At worst every board sends an unseen bitstream at once, and each takes all the time it may.
            turns = math.ceil(max(1, len(s.serials) or s.boards) / s.twin.limits().pool)
            answer_s += s.twin.timeout_s * turns
        self.timing = Timing(
            flash_s=s.flash_s,
            touch_s=1.0 + 2 * s.boot_s,
            test_s=s.test_s,
            banner_s=0.5 + s.boot_s,
            open_tries=10,
            open_pause_s=0.02,
            settle_s=0.0,
            chunk_pause_s=0.0,
            answer_s=answer_s,
            replug_s=s.replug_s,
            gone_s=s.gone_s,
            retry_s=s.retry_s,
        )

    async def events(self) -> AsyncIterator[Hotplug]:
        """Start the boards and pass on what they do; they end with this iterator."""
        folder = Path(tempfile.mkdtemp(prefix="fieldstation-boards-"))
        nodes: dict[str, Node] = {}
        ports: dict[str, int] = {}  # of the one hub that all of them are plugged into
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command(folder),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, "TMPDIR": str(folder)},  # whatever it leaves goes with the folder
            )
            assert self._process.stdout is not None
            async for line in self._process.stdout:
                event = json.loads(line)
                path = event["path"]
                if event["event"] == "add":
                    serial = event["serial"]
                    properties = {"DEVNAME": path, "ID_SERIAL_SHORT": serial, "ID_MODEL": "pico-ice"}
                    port = ports.setdefault(serial, len(ports) + 1)
                    properties["DEVPATH"] = f"/devices/platform/simulated/usb1/1-1/1-1.{port}"
                    nodes[path] = Node(event["kind"], path, event.get("interface"), properties)
                    yield Hotplug("add", event["serial"], nodes[path])
                elif path in nodes:
                    yield Hotplug("remove", event["serial"], nodes.pop(path))
            raise SimulatorGoneError(code=await self._process.wait())
        finally:
            await self._end()
            shutil.rmtree(folder, ignore_errors=True)

    def _command(self, folder: Path) -> list[str]:
        s = self.settings
        habits = {"boot_s": s.boot_s, "measure_s": s.measure_s, "watchdog_s": s.watchdog_s}
        serials = s.serials or default_serials(s.boards)
        command = [sys.executable, "-m", "fieldstation.fleet.sim", "--dir", str(folder)]
        command += ["--answers", s.answers, "--habits", json.dumps(habits)]
        command += ["--answer-settings", s.twin.model_dump_json()] if s.answers == "twin" else []
        command += [f"--serial={serial}" for serial in serials]
        command += ["--journal", s.journal] if s.journal else []
        return [*command, "--socket", s.socket] if s.socket else command

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    async def command(self, **command: Any) -> None:
        """Tell the boards something, for example `cmd="unplug", serial="1111111111111111"`."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        await self._process.stdin.drain()

    async def touch(self, node: Node) -> None:
        """Open and close the pseudo-terminal at 1200 baud; the board sees it through the terminal's settings."""
        if node.kind == TTY:
            touch(node.path)

    @asynccontextmanager
    async def drive(self, node: Node) -> AsyncIterator[Path]:
        """A simulated disk is a directory already."""
        if node.kind != PARTITION:
            raise FileNotFoundError(node.path)
        yield Path(node.path)

    async def port(self, node: Node) -> Port:
        """Open the pseudo-terminal."""
        return Port.open(node.path, chunk_bytes=self.timing.chunk_bytes, pause_s=self.timing.chunk_pause_s)

    async def firmware(self, name: str) -> bytes:
        """Return the placeholder for `name`."""
        return uf2.placeholder(name)
