"""One pipeline: how its processes do and what they gave up on, read from its NATS while somebody looks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nats.errors
from nats.js import JetStreamContext

from fieldstation.core.errors import FieldstationError
from fieldstation.core.log import mask
from fieldstation.pipeline import state
from fieldstation.pipeline.config import Nats, nats_secrets
from fieldstation.pipeline.errors import MessageError, PipelineNotRunningError
from fieldstation.pipeline.manifest import load
from fieldstation.pipeline.names import product_of
from fieldstation.pipeline.plan import Plan, make_plan
from fieldstation.pipeline.status import ProcessStatus, Reading, rows_of
from fieldstation.pipeline.wire import codec
from fieldstation.pipeline.wire.connection import connect
from fieldstation.pipeline.wire.deadletters import DeadLetter, dead_letter, dead_letters, discard, replay
from fieldstation.pipeline.wire.inspect import readings
from fieldstation.web.config import PipelineSource
from fieldstation.web.errors import WebError

log = logging.getLogger(__name__)

EVERY_S = 2.0
LOOKED_S = 15.0
LETTERS = 200


class PipelineUnreachableError(WebError):
    """The pipeline {name} is not reached: {problem}."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter and the stream it lies in."""

    stream: str
    letter: DeadLetter


class PipelineWatch:
    """One pipeline of the settings; a service of its own (`core.service.Service`)."""

    def __init__(self, name: str, source: PipelineSource) -> None:
        self.name = name
        self.rows: list[ProcessStatus] = []
        self.letters: list[Letter] = []
        self.problem = ""
        self.version = ""
        self._source = source
        self._folder = Path()
        self._streams: list[str] = []
        self._js: JetStreamContext | None = None
        self._looked_at = 0.0
        self._wanted = asyncio.Event()
        self._before: tuple[float, dict[tuple[str, str], Reading]] | None = None

    async def start(self) -> None:
        """Nothing to get ready."""

    async def run(self) -> None:
        """Read while somebody looks, until cancelled."""
        while True:
            await self._wanted.wait()
            try:
                await self._watch()
            except (FieldstationError, nats.errors.Error, OSError, TimeoutError) as error:
                self.problem = mask(str(error) or type(error).__name__)
                log.info("pipeline %s: %s", self.name, self.problem)
                await asyncio.sleep(EVERY_S)

    async def stop(self) -> None:
        """Nothing is left to let go of."""

    def health(self) -> dict[str, object]:
        """Say how it is."""
        return {"ok": not self.problem, "processes": len(self.rows)}

    def look(self) -> Sequence[ProcessStatus]:
        """Return how the processes do, as of the last two seconds; they are read for a while after."""
        self._looked_at = time.monotonic()
        self._wanted.set()
        return self.rows

    async def replay(self, stream: str, number: int) -> str:
        """Give a dead letter to its process again."""
        letter = await replay(self._reached(stream), stream, number)
        await self._read_letters()
        return f"{letter.process} gets message {number} again."

    async def discard(self, stream: str, number: int) -> str:
        """Delete a dead letter for good."""
        letter = await discard(self._reached(stream), stream, number)
        await self._read_letters()
        return f"Message {number} of {letter.process} is deleted."

    async def payload(self, stream: str, number: int) -> str:
        """Return a dead letter's payload as text."""
        letter = await dead_letter(self._reached(stream), stream, number)
        try:
            return str(codec.to_text(codec.decode(letter.body, letter.subject).payload))
        except MessageError as error:
            return f"It cannot be read: {error}"

    def _reached(self, stream: str) -> JetStreamContext:
        if self._js is None:
            raise PipelineUnreachableError(name=self.name, problem=self.problem or "there is no line to it now")
        if stream not in {letter.stream for letter in self.letters}:
            raise WebError(f"The pipeline {self.name} has no dead letters in a stream {stream!r}.")
        return self._js

    async def _watch(self) -> None:
        plan = await asyncio.to_thread(self._plan)
        secrets = nats_secrets()
        url = plan.processes[0].config["nats"]["url"]
        settings = Nats.model_validate({"url": url, "ca": self._source.ca, "start_timeout": 5, **secrets})
        client = await connect(settings, name="fieldstation panel")
        try:
            self._js = client.jetstream(timeout=5)
            self._before = None
            while time.monotonic() - self._looked_at < LOOKED_S:
                await self._read(self._js, plan)
                self.problem = ""
                await asyncio.sleep(EVERY_S)
            self._wanted.clear()
        finally:
            self._js = None
            with contextlib.suppress(Exception):
                await asyncio.wait_for(client.close(), 5)

    def _plan(self) -> Plan:
        source = self._source
        product = product_of(source.product, source.manifest)
        self._folder = state.folder_of(product, source.state)
        found = self._state()
        url = source.nats or (found.nats_url if found is not None else "")
        if not url:
            raise PipelineNotRunningError(product=product, state=self._folder)
        plan = make_plan(load(source.manifest), product, url)
        self.version = plan.version
        return plan

    def _state(self) -> state.PipelineState | None:
        try:
            return state.read(self._folder, self.name)
        except PipelineNotRunningError:
            return None

    async def _read(self, js: JetStreamContext, plan: Plan) -> None:
        now, after = time.monotonic(), await readings(js, plan)
        found = self._state()
        then, before = self._before or (now, after)
        self._before = now, after
        self.rows = rows_of(plan, before, after, now - then, found.replicas if found is not None else None)
        self._streams = [stream.name for stream in plan.streams]
        if min(sum(row.dead_letters for row in self.rows), LETTERS) != len(self.letters):
            await self._read_letters()

    async def _read_letters(self) -> None:
        if self._js is not None:
            js = self._js
            self.letters = [Letter(s, letter) for s in self._streams for letter in await dead_letters(js, s)][:LETTERS]
