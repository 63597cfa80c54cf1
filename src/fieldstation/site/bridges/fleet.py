"""What happens in the fleet to pipeline messages, from control's audit log. Image `node:fleet`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from fieldstation.core.errors import FieldstationError
from fieldstation.core.retry import Backoff
from fieldstation.core.security import own_token
from fieldstation.fleet.client.address import parse_all
from fieldstation.fleet.client.http import Control, new_session
from fieldstation.pipeline.context import ProcessContext
from fieldstation.pipeline.node import trigger
from fieldstation.pipeline.requesting import TriggerRunner
from fieldstation.site.bridges.cursor import FLEET, Cursor
from fieldstation.site.bridges.passage import passage
from fieldstation.site.bridges.record import record, setting

log = logging.getLogger(__name__)

PAGE = 1000  # the most that control answers at once


@trigger
async def fleet(requests: TriggerRunner, sdk: ProcessContext) -> None:
    """Forward every line of the fleet's audit log (reservations, devices, workers: who did what), until stopped.

    Config: `control` (default: the site's), `every_s` (1). The token is FIELDSTATION_TOKEN, or in the address. The log
    is durable, so nothing is missing after an outage of either side.
    """
    urls = await setting(sdk, "control", "FIELDSTATION_CONTROL", "where the control server is")
    every_s = await sdk.centralized_config.get("every_s", float, 1.0)
    cursor = Cursor(sdk, FLEET)
    await cursor.load()
    backoff, failures = Backoff(0.5, 10.0), 0
    async with new_session() as session, passage(sdk) as out:
        control = Control(session, parse_all(urls, own_token()))
        at = int(cursor.value.get("id", 0))
        while True:
            try:
                async for row in after(control, at):
                    number = at = int(row["id"])

                    async def done(stored: bool, number: int = number) -> None:
                        cursor.value["id"] = number
                        cursor.value["forwarded"] = cursor.value.get("forwarded", 0) + int(stored)
                        await cursor.save(now=out.is_idle)

                    await out.send(audit_record(row), identity(row), done)
                failures = 0
            except FieldstationError as error:
                log.warning("the fleet's log: %s", error)
                await asyncio.sleep(backoff.delay(failures))
                failures += 1
            await asyncio.sleep(every_s)


async def after(control: Control, at: int) -> AsyncIterator[dict[str, Any]]:
    """Yield the lines after number `at`, oldest first. Control tells newest first, so pages are stacked."""
    pages: list[list[dict[str, Any]]] = []
    path = f"/api/fleet/events?limit={PAGE}"
    while True:
        rows = await control.get(path)
        pages.append([row for row in rows if int(row["id"]) > at])
        if len(pages[-1]) < PAGE:
            break
        path = f"/api/fleet/events?limit={PAGE}&before={pages[-1][-1]['id']}"
    for page in reversed(pages):
        for row in reversed(page):
            yield row


def identity(row: dict[str, Any]) -> str:
    """Return the id of a line: its number and its time, since a new database counts from 1 again."""
    return f"audit-{row['id']}-{row['at']}"


def audit_record(row: dict[str, Any]) -> Any:
    """Return the record of a line of the audit log."""
    values = {key: str(row.get(key, "")) for key in ("user", "client", "action", "target", "detail")}
    return record("fleet", identity(row), datetime.fromisoformat(row["at"]).timestamp(), values)
