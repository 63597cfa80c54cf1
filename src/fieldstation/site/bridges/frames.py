"""Frames to pipeline messages: one record of statistics for each frame of a frame server. Image `node:frames`."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import grpc

from fieldstation.core.retry import Backoff
from fieldstation.pipeline.context import ProcessContext
from fieldstation.pipeline.node import trigger
from fieldstation.pipeline.requesting import TriggerRunner
from fieldstation.site.bridges.cursor import FRAMES, Cursor
from fieldstation.site.bridges.passage import Passage, passage
from fieldstation.site.bridges.record import record, setting
from fieldstation.stream.client import AioDaqDataClient
from fieldstation.stream.model import Frame

log = logging.getLogger(__name__)

FILES_KEPT = 64  # of so many files it is remembered how far they were read


@trigger
async def frames(requests: TriggerRunner, sdk: ProcessContext) -> None:
    """Forward every frame of the frame server `server` (`host:port`), until stopped.

    Config: `server` (default: the site's first), `modules` (comma-separated, default all), `history` (`run`, the
    default: also what the run already holds, so that nothing is missing after a restart; or `none`), `ca` (PEM file;
    default: the site's): the server is then asked over TLS. Its token is FIELDSTATION_STREAM_TOKEN.
    """
    target = _target(await setting(sdk, "server", "FIELDSTATION_SITE_STREAMS", "which frame server to follow"))
    modules = await sdk.centralized_config.get("modules", _numbers, ())
    history = await sdk.centralized_config.get("history", str, "run") == "run"
    trusted = await sdk.centralized_config.get("ca", str, os.environ.get("FIELDSTATION_SITE_STREAM_CA", ""))
    ca = Path(trusted) if trusted else None
    forwarding = Forwarding(target, Cursor(sdk, FRAMES))
    await forwarding.cursor.load()
    async with passage(sdk) as out:
        backoff, failures = Backoff(0.2, 5.0), 0
        while True:
            try:
                nodes = {"daq_nodes": [{"ip_addr": target}]}
                async with AioDaqDataClient(nodes, log_level=logging.WARNING, ca=ca) as client:
                    async for frame in client.frames([target], modules=modules, every=True, history=history):
                        failures = 0
                        await forwarding.forward(frame, out)
            except (grpc.aio.AioRpcError, OSError) as error:
                log.warning("the frame server %s: %s", target, _reason(error))
            await asyncio.sleep(backoff.delay(failures))
            failures += 1


class Forwarding:
    """What was forwarded of which file. `forwarded` and `missing` count frames: missing is a gap in their numbers."""

    def __init__(self, source: str, cursor: Cursor) -> None:
        self.source = source
        self.cursor = cursor
        self._seen: dict[str, int] = {}

    async def forward(self, frame: Frame, out: Passage) -> None:
        """Send a frame's statistics, unless it was sent before."""
        confirmed = self.cursor.value.get("files", {}).get(frame.file, -1)
        if frame.number <= max(confirmed, self._seen.get(frame.file, -1)):
            return
        self._seen[frame.file] = frame.number
        while len(self._seen) > FILES_KEPT:
            del self._seen[next(iter(self._seen))]

        async def done(stored: bool) -> None:
            self._note(frame.file, frame.number, stored)
            await self.cursor.save(now=out.is_idle)

        await out.send(statistics(frame, self.source), identity(frame), done)

    def _note(self, file: str, number: int, stored: bool) -> None:
        value = self.cursor.value
        files: dict[str, int] = value.setdefault("files", {})
        gap = number - files.pop(file, -1) - 1
        files[file] = number  # at the end: the oldest file is the first
        while len(files) > FILES_KEPT:
            del files[next(iter(files))]
        value["forwarded"] = value.get("forwarded", 0) + int(stored)
        value["missing"] = value.get("missing", 0) + gap + int(not stored)


def identity(frame: Frame) -> str:
    """Return the id of a frame: its file and its number in there, which no other frame ever has."""
    return f"{frame.file}#{frame.number}"


def statistics(frame: Frame, source: str) -> Any:
    """Return the record of a frame: its place, and mean, spread, least and greatest of its pixels."""
    image = frame.image
    values = {
        "stream": source,
        "module": frame.module_id,
        "product": frame.product,
        "mean": float(image.mean()),
        "std": float(image.std()),
        "min": float(image.min()),
        "max": float(image.max()),
    }
    return record("frames", identity(frame), frame.time, values)


def _target(text: str) -> str:
    first = text.split(",")[0].strip()  # `name=host:port,...` in a site's environment
    return first.partition("=")[2] or first


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part.strip())


def _reason(error: Exception) -> str:
    return str(error.details()) if isinstance(error, grpc.aio.AioRpcError) else str(error)
