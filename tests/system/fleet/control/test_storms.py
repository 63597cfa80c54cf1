"""Clients that do not read, and clients that come and go without end: others are served, and memory stays."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest
import socketio

from fieldstation.fleet.control import told
from fieldstation.fleet.model import Holder
from fieldstation.fleet.wire import slow
from fieldstation.testing import eventually

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.parametrize("database", ["sqlite"], indirect=True),
]

DEADLINE_S = 60


async def deaf(url: str, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a WebSocket by hand, shake hands as `name`, and never read again."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    request = f"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {host}:{port}\r\n{upgrade}{key}"
    writer.write(request.encode())
    await reader.readuntil(b"\r\n\r\n")
    hello = b"40" + json.dumps({"client_id": name}).encode()
    writer.write(bytes([0x81, 0x80 | len(hello)]) + bytes(4) + hello)  # one text frame under the mask 0
    await writer.drain()
    return reader, writer


async def test_a_client_that_does_not_read_is_dropped_before_it_fills_the_memory(control, listeners):
    """Some 12 MB of events to a client that has stopped reading; what is kept for it is bounded."""
    inside = control.control
    bob = await listeners(control.url, "bob")
    _, writer = await deaf(control.url, "deaf")
    holder = Holder("local", "deaf")
    await eventually(lambda: inside.index.clients[holder] == 1, DEADLINE_S)
    padding = "x" * 400
    longest = 0

    def longest_queue() -> int:
        return max((one.queue.qsize() for one in control.service._sio.eio.sockets.values()), default=0)

    for number in range(30_000):
        inside.events.publish(told.told(holder, "A1", {"event": "storm", "number": number, "padding": padding}))
        if number % 500 == 0:
            await asyncio.sleep(0)
            longest = max(longest, longest_queue())
    await eventually(lambda: inside.index.clients[holder] == 0, DEADLINE_S)
    assert max(longest, longest_queue()) <= slow.MOST_PACKETS + 1
    assert inside.record.counts.slow_clients == 1
    await eventually(lambda: control.service._clients._outgoing.empty(), DEADLINE_S)
    assert control.service._clients.load()["unacknowledged_events"] <= 1000
    # Nobody else noticed.
    inside.events.publish(told.told(Holder("local", "bob"), "A1", {"event": "hello"}))
    await eventually(lambda: bob.count("hello") == 1, DEADLINE_S)
    # And the newest of what it missed is told when it comes back and reads.
    again = await listeners(control.url, "deaf")
    await eventually(lambda: any(item.get("number") == 29_999 for _, item in again.heard), DEADLINE_S)
    writer.close()


async def test_of_many_amounts_that_nobody_has_read_only_the_newest_is_kept(control, listeners):
    bob = await listeners(control.url, "bob")
    await eventually(lambda: bob.amounts == [0], DEADLINE_S)
    for number in range(10_000):
        control.control.events.publish(told.available(number))
    assert control.service._clients._outgoing.qsize() <= 2
    await eventually(lambda: bob.amounts[-1:] == [9_999], DEADLINE_S)
    assert len(bob.amounts) < 100


async def test_a_client_that_reconnects_without_pause_disturbs_nobody_and_leaves_nothing(control, workers, apis):
    """A thousand connections under one name, as fast as they go, while another client reserves and ends."""
    await workers(control.url)
    api = apis(control.url)
    stop = asyncio.Event()
    done = 0

    async def storm(session: aiohttp.ClientSession) -> None:
        nonlocal done
        while not stop.is_set():
            sio = socketio.AsyncClient(reconnection=False, handle_sigint=False, http_session=session)
            try:
                await sio.connect(control.url, auth={"client_id": "storm"}, transports=["websocket"], wait_timeout=20)
            except socketio.exceptions.ConnectionError:
                continue
            done += 1
            await sio.disconnect()
            if done >= 1000:
                stop.set()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        storming = [asyncio.create_task(storm(session)) for _ in range(20)]
        served = 0
        while not stop.is_set():
            rows = await api.reserve(1, name="bob", wait_s=15)
            assert await api.post("/end", name="bob", serials=[rows[0]["serial"]]) == (200, [rows[0]["serial"]])
            served += 1
        await asyncio.gather(*storming)
    assert served > 0
    inside = control.control
    await eventually(lambda: not inside.index.clients, DEADLINE_S)
    assert control.service._clients.load()["sockets"] == 0
    assert control.service._clients._sockets == {}
