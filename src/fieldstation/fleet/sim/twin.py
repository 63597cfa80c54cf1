"""Boards that answer what the circuit really does: one digital twin for all boards of a worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fieldstation.fleet.sim.answers import Ask, Tell, pulse_lines, sample_lines
from fieldstation.fleet.twin.model import Answer, unknown
from fieldstation.fleet.twin.service import Twin
from fieldstation.fleet.twin.settings import TwinSettings

log = logging.getLogger(__name__)


@asynccontextmanager
async def twin(settings: str) -> AsyncIterator[Ask]:
    """Answer when the twin has; `settings` is TwinSettings as JSON. What is still computed at the end is given up."""
    chosen = TwinSettings.model_validate_json(settings)
    running: set[asyncio.Task[None]] = set()
    async with (
        Twin(chosen.answer_cache(), chosen.conditions(), chosen.limits()) as service,
        asyncio.TaskGroup() as group,
    ):

        async def reply(kind: str, bitstream: bytes, tell: Tell) -> None:
            try:
                found = await service.answer(bitstream, sampled=kind == "variance")
            except (
                OSError
            ) as error:  # no space for scratch files, no process to be had: this one fails, the rest goes on
                log.exception("the twin could not work")
                found = unknown("twin_failed", str(error))
            tell(lines(found))

        def ask(kind: str, bitstream: bytes, serial: str, tell: Tell) -> None:
            task = group.create_task(reply(kind, bitstream, tell), name=f"twin for {serial}")
            running.add(task)
            task.add_done_callback(running.discard)

        yield ask
        for task in running:
            task.cancel()


def lines(found: Answer) -> list[str]:
    """Return what the firmware prints; `cannot measure` is the twin's own line, which no real firmware prints."""
    if found.reason:
        # One line of the serial protocol, whatever the tools wrote.
        detail = " ".join(found.detail.encode("ascii", "replace").decode().split())
        return [f"cannot measure: {found.reason}: {detail}"]
    return sample_lines(found.samples) if found.pulses is None else pulse_lines(found.pulses)
