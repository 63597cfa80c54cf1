"""Is a worker dead, or only silent? A port that refuses is proof; silence is not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from urllib.parse import urlsplit

PROBE_S = 1.0


async def refuses(url: str) -> bool:
    """Tell whether nobody listens at `url`: at least one of its addresses refuses, and none accepts or keeps silent.

    A name such as localhost has an IPv6 and an IPv4 address, and a worker listens on one of them. Addresses that this
    machine has no route to prove nothing either way.
    """
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(PROBE_S):
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(parts.hostname or "", port, type=socket.SOCK_STREAM)
            refusals = [await _refused(str(address[0]), port) for *_, address in found]
    except (OSError, TimeoutError, ValueError):
        return False
    return True in refusals and False not in refusals


async def _refused(host: str, port: int) -> bool | None:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except ConnectionRefusedError:
        return True
    except OSError:
        return None
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return False
