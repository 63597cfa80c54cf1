"""Count what went in and what came out, each side from its own source, and say whether they agree."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nats.js import JetStreamContext
from nats.js.errors import KeyNotFoundError, NotFoundError

from fieldstation.core.errors import StoreError
from fieldstation.core.store import connect as open_database
from fieldstation.fleet.client.address import parse_all
from fieldstation.fleet.client.http import Control, new_session
from fieldstation.pipeline.config import Nats
from fieldstation.pipeline.manifest import load
from fieldstation.pipeline.names import WorkflowNames, bucket, dead_letter_stream
from fieldstation.pipeline.wire.connection import connect
from fieldstation.site.bridges.cursor import FRAMES
from fieldstation.site.bridges.fleet import after
from fieldstation.site.demo.files import Layout

PRODUCT = "night"
BRIDGES = "lab"  # the process that the bridges run in


@dataclass(frozen=True, slots=True)
class Check:
    """One equation: each of `sides` names its parts, and their sums must be equal."""

    name: str
    sides: tuple[dict[str, int], ...]

    @property
    def ok(self) -> bool:
        """Whether it holds, of something: nothing equals nothing, and proves nothing."""
        sums = {sum(side.values()) for side in self.sides}
        return len(sums) == 1 and sums != {0}

    def __str__(self) -> str:
        """Return `sent 12 = results 12`."""
        shown = [" + ".join(f"{name} {count}" for name, count in side.items()) for side in self.sides]
        return (" = " if self.ok else " ≠ ").join(shown)


def produced(folder: Path) -> int:
    """Count the frames that the telescope wrote."""
    # Imported at the end, when the telescope and the station have given their memory back.
    from fieldstation.stream.model import PRODUCTS
    from fieldstation.stream.pff import Found, next_frame, parse_name

    total = 0
    for path in folder.rglob("*.pff"):
        size = PRODUCTS[parse_name(path.name).product.name].image_bytes
        data, at = path.read_bytes(), 0
        while isinstance(found := next_frame(data, at, size), Found):
            total += 1
            at = found.end
    return total


def archived(path: Path) -> Counter[str]:
    """Count the rows of the table by their source."""
    try:
        with contextlib.closing(open_database(path, read_only=True)) as connection:
            return Counter(dict(connection.execute("SELECT source, count(*) FROM message GROUP BY source").fetchall()))
    except (sqlite3.OperationalError, StoreError):  # the file is there a moment before its table, or not at all
        return Counter()


def acknowledged(station: Path) -> tuple[int, int]:
    """Count the readings that the station stored, and of these the ones that the server has acknowledged."""
    database = station / "data" / "active-message-queue.sqlite3"
    try:
        with contextlib.closing(open_database(database, read_only=True)) as connection:
            (stored,) = connection.execute(
                "SELECT count(*) FROM message WHERE rank = 0 AND body LIKE '%\"data\"%'"
            ).fetchone()
            (owed,) = connection.execute(
                "SELECT coalesce(sum(min(last, (SELECT max(seq) FROM message)) - first + 1), 0) "
                "FROM delivery WHERE rank = 0"
            ).fetchone()
    except (sqlite3.OperationalError, StoreError):
        return 0, 0
    return stored, stored - owed


@dataclass(frozen=True, slots=True)
class Flowing:
    """What the servers know: how much each source has for the pipeline, frames that went missing on the way, dead
    letters, and what waits."""

    entered: dict[str, int]
    missing: int
    dead: int
    lag: int


async def flowing(layout: Layout) -> Flowing:
    """Ask the message server and control: readings in the stations' stream, lines of the fleet's log, the frames
    bridge's own count."""
    version = load(layout.manifest).version
    names = WorkflowNames(PRODUCT, version, "join")
    client = await connect(Nats.model_validate({"url": layout.nats_url, "start_timeout": 30}), name="demo counts")
    try:
        js = client.jetstream(timeout=10)
        frames = await _cursor(js, bucket(PRODUCT, version, "join", BRIDGES))
        dead = 0
        with contextlib.suppress(NotFoundError):  # not there before the first dead letter
            dead = (await js.stream_info(dead_letter_stream(names.stream))).state.messages
        consumers = await js.consumers_info(names.stream)
        lag = sum((info.num_pending or 0) + (info.num_ack_pending or 0) for info in consumers)
        entered = {
            "frames": frames.get("forwarded", 0),
            "station": len(await _readings(js)),
            "fleet": await _log_lines(layout.url),
        }
        return Flowing(entered, frames.get("missing", 0), dead, lag)
    finally:
        await client.close()


async def _cursor(js: JetStreamContext, name: str) -> dict[str, int]:
    try:
        found: dict[str, int] = json.loads((await (await js.key_value(name)).get(FRAMES)).value or b"{}")
    except (NotFoundError, KeyNotFoundError):  # before the first frame
        return {}
    return found


async def _readings(js: JetStreamContext) -> set[str]:
    found: set[str] = set()
    try:
        subscription = await js.pull_subscribe("station.*.data", stream="STATION")
    except NotFoundError:
        return found
    try:
        left = (await subscription.consumer_info()).num_pending or 0
        while left > 0:
            for message in await subscription.fetch(min(left, 500), timeout=20):
                found.add(json.loads(message.data)["id"])
                await message.ack()
                left -= 1
    finally:
        await subscription.unsubscribe()
    return found


async def _log_lines(url: str) -> int:
    async with new_session() as session:
        control = Control(session, parse_all(url), patience_s=60.0)
        return len([row async for row in after(control, 0)])


def checks(layout: Layout, flow: Flowing, sent: int, results: int) -> Sequence[Check]:
    """Return the four equations of the demonstration."""
    table = archived(layout.archive)
    stored, acked = acknowledged(layout.station)
    frames = produced(layout.frames)
    entered = sum(flow.entered.values()) + results
    return (
        Check("evaluations", ({"sent": sent}, {"results": results}, {"in the table": table["pulses"]})),
        Check("frames", ({"produced": frames}, {"sent": table["frames"], "dropped": flow.missing})),
        Check("station", ({"stored": stored}, {"acknowledged": acked}, {"archived": table["station"]})),
        Check("pipeline", ({"in": entered}, {"out": sum(table.values()), "dead letters": flow.dead})),
    )
