"""The acquisition methods that a configuration turns on, as one source."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from fieldstation.stream.config import ServerConfig
from fieldstation.stream.errors import StreamError
from fieldstation.stream.model import HpIo
from fieldstation.stream.source import History, Publish, Source
from fieldstation.stream.sources.ingest import IngestSource
from fieldstation.stream.sources.pff import PffSource


class Several:
    """Sources that run side by side; one that fails fails all."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources

    async def start(self, publish: Publish) -> None:
        """Start each in turn."""
        for source in self.sources:
            await source.start(publish)

    async def run(self) -> None:
        """Run all together."""
        try:
            async with asyncio.TaskGroup() as group:
                for source in self.sources:
                    group.create_task(source.run())
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None

    async def stop(self) -> None:
        """Stop each, whatever the others do."""
        async with contextlib.AsyncExitStack() as stack:
            for source in self.sources:
                stack.push_async_callback(source.stop)

    def demand(self, readers: int, every: bool) -> None:
        """Tell all."""
        for source in self.sources:
            source.demand(readers, every)

    def history(self) -> History | None:
        """That of the first source that has one."""
        return next((history for source in self.sources if (history := source.history()) is not None), None)

    def health(self) -> dict[str, object]:
        """`ok` when all are; each under its class name."""
        each = {type(source).__name__: source.health() for source in self.sources}
        return {"ok": all(health["ok"] for health in each.values()), **each}


def acquisition(request: HpIo, config: ServerConfig) -> Source:
    """Return what the server reads frames of a real run from."""
    methods = config.acquisition_methods
    sources: list[Source] = []
    if methods.filesystem_poll.enabled or methods.filesystem_pipe.enabled:
        pipe = config.read_status_pipe_name if methods.filesystem_pipe.enabled else None
        sources.append(PffSource(request, status_pipe=pipe))
    if methods.uds.enabled:
        sources.append(IngestSource(request, methods.uds))
    if not sources:
        raise StreamError("No acquisition method is enabled; turn on one of filesystem_poll, filesystem_pipe, uds.")
    return sources[0] if len(sources) == 1 else Several(sources)
