"""The Source interface: whatever produces frames hands them to one callable."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from fieldstation.stream.model import Frame, Wanted

Publish = Callable[[Sequence[Frame]], None]


class History(Protocol):
    """Reads what a run already holds, and says at which frame the live stream takes over."""

    def catch_up(self, wanted: Wanted, room: int, go_live: Callable[[], None]) -> AsyncIterator[Sequence[Frame]]:
        """Yield the run's frames. `go_live` is called once, at a moment after which each new frame is published;
        what is yielded after it is all that came before it, and fewer than about `room` frames."""


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

    def demand(self, readers: int, every: bool) -> None:
        """Tell how many clients there are, and whether one needs each frame; else the newest of each is enough."""

    def history(self) -> History | None:
        """Return what can read the frames of the run so far, or None when nothing is kept."""
