"""A client that does not read: what is queued for it must not fill our memory."""

from __future__ import annotations

import logging
from typing import Any

import socketio

log = logging.getLogger(__name__)

MOST_PACKETS = 1000  # queued for one socket; a client that reads has a handful


async def drop_if_behind(sio: socketio.AsyncServer, sid: str, namespace: str = "/") -> bool:
    """Close the socket, and forget what is queued for it, when its client does not read; tells whether it was.

    What it did not acknowledge is kept where events are kept, and told to its next socket.
    """
    engine: Any = sio.eio.sockets.get(sio.manager.eio_sid_from_sid(sid, namespace))
    if engine is None or engine.queue.qsize() <= MOST_PACKETS:
        return False
    log.warning("a client does not read what it is sent; its socket is closed")
    # Without waiting: its writer hangs on a peer that takes nothing.
    await engine.close(wait=False, abort=True)
    while not engine.queue.empty():
        engine.queue.get_nowait()
        engine.queue.task_done()
    return True
