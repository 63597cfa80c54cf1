"""The process of an uplink: build it by its entry point, run its send loop, report, and end as it is told."""

from __future__ import annotations

import asyncio
import logging
import os
import threading

from fieldstation.core import plugins
from fieldstation.station import heartbeat
from fieldstation.station.child import END_NOW
from fieldstation.station.config import Config
from fieldstation.station.logger import Logger
from fieldstation.station.memory import give_back
from fieldstation.station.outbox import Outbox
from fieldstation.station.place import current_place
from fieldstation.station.uplink import SendLoop, Uplink

_REPORT_EVERY_S = 0.25


class _ToLogger(logging.Handler):
    """Brings warnings of the libraries below (a broker that cannot be reached) into the station's log."""

    def __init__(self, logger: Logger) -> None:
        super().__init__(logging.WARNING)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        else:
            self._logger.warning(text)


def run(config: Config, logger: Logger, teardown_indicator: threading.Event) -> None:
    """Send over the uplink whose name is the logger's origin."""
    send_until_torn_down(config, logger, teardown_indicator, uplink=logger.origin)


def send_until_torn_down(
    config: Config, logger: Logger, teardown_indicator: threading.Event, *, uplink: str, provider: str | None = None
) -> None:
    """Send what `uplink` is owed until the indicator is set and the queue is drained, or SIGTERM comes."""
    section = config.all_uplinks()[uplink]
    logging.getLogger().addHandler(_ToLogger(logger))
    build = plugins.load("uplinks", provider or section.provider)
    line: Uplink = build(config, uplink)
    loop = SendLoop(
        Outbox(current_place().data_dir, uplink),
        line,
        max_parallel=section.max_parallel_messages,
        max_drain_s=section.max_drain_time,
        tell=lambda level, text: logger.error(text) if level == "ERROR" else logger.warning(text),
    )
    asyncio.run(_live(loop, teardown_indicator))


async def _live(loop: SendLoop, teardown_indicator: threading.Event) -> None:
    main = asyncio.create_task(loop.run())
    give_back()
    # To end without draining loses nothing: what is queued is on the disk, and the next process goes on with it.
    asyncio.get_running_loop().add_signal_handler(END_NOW, loop.end_soon)
    told: dict[str, object] = {}
    while not main.done():
        if teardown_indicator.is_set():
            loop.tear_down()
        status = loop.status()
        if status != told:
            told = status
            heartbeat.report(status)
        else:
            heartbeat.beat()
        await asyncio.wait([main], timeout=_REPORT_EVERY_S)
    await main
    if loop.unforgotten:
        # The supervisor died and its writer with it: nobody will answer the thread that waits for it.
        os._exit(0)
