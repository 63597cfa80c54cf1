"""The Source interface: whatever produces frames hands them to one callable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from fieldstation.stream.model import Frame

Publish = Callable[[Sequence[Frame]], None]


class Source(Protocol):
    """Produces frames between start and stop. `publish` is called in the event loop's thread."""

    async def start(self, publish: Publish) -> None:
        """Return when it is ready; raise a StreamError when it cannot become so."""

    async def run(self) -> None:
        """Work until cancelled; an error raised here ends all streams with a status."""

    async def stop(self) -> None:
        """Let go of files, sockets and threads; also called after a failed start."""

    def health(self) -> dict[str, object]:
        """Say how it is: `{"ok": bool, ...}` with its counters."""

    def want_every(self, wanted: bool) -> None:
        """Tell whether somebody needs each frame; otherwise the newest of each product is enough."""
