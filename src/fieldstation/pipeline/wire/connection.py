"""A connection to NATS that says in one sentence why it cannot be made, and that comes back by itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import nats
import nats.aio.transport
import nats.errors
from nats.aio.client import Client
from nats.js.errors import APIError

from fieldstation.core.log import mask
from fieldstation.core.plugins import require
from fieldstation.core.retry import Backoff, retry
from fieldstation.core.security import client_tls
from fieldstation.pipeline.config import Nats
from fieldstation.pipeline.errors import BrokerError, BrokerRefusedError, NoJetStreamError
from fieldstation.pipeline.wire.patience import patiently

log = logging.getLogger(__name__)

RECONNECT_WAIT_S = 0.2  # between tries at the same server: a restarted broker is found well within a second
ROUTES_S = 10.0  # for the servers of a cluster to find the one among them that has JetStream
PING_INTERVAL_S = 5.0  # a cut line without a reset is noticed after two unanswered pings

# Nobody listens, and "not enabled", for the server and for the account.
_WITHOUT_JETSTREAM = (None, 10076, 10039)

Callback = Callable[[], Awaitable[None]]


async def connect(
    settings: Nats,
    *,
    name: str,
    on_up: Callback | None = None,
    on_down: Callback | None = None,
    on_closed: Callback | None = None,
) -> Client:
    """Connect, trying for `start_timeout`; it reconnects for ever once it has been connected."""
    shown = mask(settings.url)
    if "ws://" in settings.url or "wss://" in settings.url:
        aiohttp = require("aiohttp", extra="fleet", feature="NATS over WebSocket")
        nats.aio.transport.aiohttp = aiohttp  # type: ignore[attr-defined]  # left out at import, see wire/__init__.py

    async def report(error: Exception) -> None:
        log.debug("nats: %s", error)

    heard: list[Exception] = []  # why the tries failed: nats-py itself goes on trying, and only reports

    async def attempt() -> Client:
        async def note(error: Exception) -> None:
            heard.append(error)
            await report(error)

        # Unlimited reconnects are meant for later; this first try has an end.
        async with asyncio.timeout(3):
            return await nats.connect(
                servers=[_address(part) for part in settings.url.split(",") if part.strip()],
                name=name,
                error_cb=note,
                reconnected_cb=on_up,
                disconnected_cb=on_down,
                closed_cb=on_closed,
                max_reconnect_attempts=-1,
                reconnect_time_wait=RECONNECT_WAIT_S,
                ping_interval=PING_INTERVAL_S,
                connect_timeout=2,
                allow_reconnect=True,
                **_credentials(settings),
            )

    failures = (nats.errors.Error, OSError, TimeoutError)
    try:
        async with asyncio.timeout(settings.start_timeout):
            return await retry(attempt, on=failures, backoff=Backoff(0.1, 1.0))
    except failures as error:
        # A server that refuses us hangs up at once: some of the tries may have seen no more than that.
        if any(_refuses(one) for one in (*heard, error)):
            raise BrokerRefusedError(url=shown) from error
        reason = heard[-1] if heard else error
        problem = mask(str(reason)) or f"nothing answered within {settings.start_timeout:g} s"
        raise BrokerError(url=shown, problem=problem) from error


async def require_jetstream(client: Client, url: str) -> None:
    """Raise NoJetStreamError unless the server has JetStream for us; a cluster gets time to elect a leader."""
    started = asyncio.get_running_loop().time()

    async def ask() -> None:
        try:
            await client.jetstream(timeout=2).account_info()
        except APIError as error:
            alone = not getattr(client, "_server_info", {}).get("cluster")
            late = asyncio.get_running_loop().time() - started > ROUTES_S
            if alone or (late and error.err_code in _WITHOUT_JETSTREAM):
                raise NoJetStreamError(url=mask(url)) from error
            raise

    await patiently(ask, url)


def _refuses(error: BaseException) -> bool:
    return isinstance(error, nats.errors.AuthorizationError) or "authorization" in str(error).lower()


def _address(part: str) -> str:
    part = part.strip()
    return part if "://" in part else f"nats://{part}"


def _credentials(settings: Nats) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if settings.user:
        options |= {"user": settings.user, "password": settings.password}
    if settings.token:
        options["token"] = settings.token
    if settings.credentials:
        options["user_credentials"] = settings.credentials
    if settings.ca or settings.certificate or "tls://" in settings.url:
        options["tls"] = client_tls(
            Path(settings.ca) if settings.ca else None,
            Path(settings.certificate) if settings.certificate else None,
            Path(settings.key) if settings.key else None,
        )
    return options
