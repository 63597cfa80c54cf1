"""A node's own small HTTP port: /health (is it alive), /ready (are its inputs open), /metrics (Prometheus text)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping

_LIMIT = 8192  # bytes of a request we are willing to read
_READ_S = 5.0

Page = tuple[int, str, str]  # status, content type, body


class HealthServer:
    """Answers GET on three paths; everything else is 404. Nothing a client sends changes anything."""

    def __init__(self, host: str, port: int, pages: Mapping[str, Callable[[], Page]]) -> None:
        self._host = host
        self._port = port
        self._pages = pages
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        """Listen; OSError when the port is taken."""
        self._server = await asyncio.start_server(self._serve, self._host, self._port, limit=_LIMIT)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the port."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                async with asyncio.timeout(_READ_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                    status, kind, body = self._answer(head.split(b"\r\n", 1)[0].decode("latin-1"))
                    payload = body.encode()
                    writer.write(
                        f"HTTP/1.1 {status} {'OK' if status == 200 else 'NO'}\r\nContent-Type: {kind}\r\n"
                        f"Content-Length: {len(payload)}\r\nConnection: close\r\n\r\n".encode()
                        + payload
                    )
                    await writer.drain()
        finally:
            writer.close()

    def _answer(self, line: str) -> Page:
        method, _, rest = line.partition(" ")
        page = self._pages.get(rest.partition(" ")[0].partition("?")[0])
        if page is None:
            return 404, "text/plain", "There is /health, /ready and /metrics.\n"
        if method not in ("GET", "HEAD"):
            return 405, "text/plain", "Only GET.\n"
        return page()


def as_json(ok: bool, report: Mapping[str, object]) -> Page:
    """A page for `report`: 200 when `ok`, else 503."""
    return (200 if ok else 503), "application/json", json.dumps(report) + "\n"
