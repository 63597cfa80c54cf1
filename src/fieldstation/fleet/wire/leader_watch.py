"""Does another control lead by now? Asked by workers and clients that know several, since a line to a frozen one, or to
one that was cut off from its database, stays open for minutes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp

EVERY_S = 2.0
ANSWER_S = 2.0

Target = tuple[str, Mapping[str, str]]  # an address and the headers that carry its token


async def until_another_leads(session: aiohttp.ClientSession, current: str, targets: Sequence[Target]) -> str:
    """Return the address of the control that leads instead of `current`, once there is one."""
    while True:
        await asyncio.sleep(EVERY_S)
        answers = await asyncio.gather(*(_ask(session, url, headers) for url, headers in targets))
        found = dict(zip((url for url, _ in targets), answers, strict=True))
        ours = found.get(current)
        for url, answer in found.items():
            if url == current or answer is None or not answer.get("leads"):
                continue
            if ours is None or not ours.get("leads") or _epoch(ours) < _epoch(answer):
                return url


async def _ask(session: aiohttp.ClientSession, url: str, headers: Mapping[str, str]) -> Mapping[str, Any] | None:
    try:
        async with session.get(
            f"{url}/health", headers=dict(headers), timeout=aiohttp.ClientTimeout(total=ANSWER_S)
        ) as response:
            answer = await response.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return None
    return answer if isinstance(answer, Mapping) else None


def _epoch(answer: Mapping[str, Any]) -> int:
    epoch = answer.get("epoch")
    return epoch if isinstance(epoch, int) else -1
