"""Workers without hardware: they speak the real line to control, and their boards are reset at once.

`line_workers.py CONTROL[,CONTROL] WORKERS DEVICES` connects WORKERS workers with DEVICES devices each.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Mapping
from typing import Any

import socketio

KINDS = ("pulsecount",)


class LineWorker:
    """One worker. It follows the leader as the real one does: by trying one control after the other."""

    def __init__(self, name: str, url: str, devices: int) -> None:
        self.name = name
        self.url = url
        self.fences = {f"{name}-{number:04d}": 0 for number in range(devices)}
        self.leases: dict[str, Mapping[str, Any]] = {}

    def device(self, serial: str, state: str = "available") -> dict[str, Any]:
        fixed = {"driver": "line", "health": "ok", "reason": "", "kinds": KINDS, "labels": {}}
        return {"serial": serial, "state": state, "fence": self.fences[serial], **fixed}

    async def hold(self, control: str, ready: asyncio.Event) -> None:
        """Serve one control until the line is gone."""
        sio = socketio.AsyncClient(reconnection=False, handle_sigint=False)
        gone = asyncio.Event()
        sio.on("disconnect", lambda *_: gone.set(), namespace="/worker")
        sio.on("assign", self.assign, namespace="/worker")
        sio.on("extend", lambda lease: {"ok": True}, namespace="/worker")

        async def release(body: Mapping[str, Any]) -> dict[str, Any]:
            self.leases.pop(body["lease"], None)
            for serial in body["serials"]:
                await sio.emit("device", self.device(serial), namespace="/worker")
            return {"ok": True}

        async def beat(every_s: float) -> None:
            while True:
                await asyncio.sleep(every_s)
                await sio.emit("beat", {}, namespace="/worker")

        sio.on("release", release, namespace="/worker")
        try:
            await sio.connect(
                control, auth={"worker": self.name}, namespaces=["/worker"], transports=["websocket"], wait_timeout=20
            )
            answer = await sio.call("hello", self.hello(), namespace="/worker", timeout=20)
            self.leases = {lease["id"]: lease for lease in answer["leases"]}
            held = {serial: fence for lease in self.leases.values() for serial, fence in lease["fences"].items()}
            self.fences |= held
            ready.set()
            beating = asyncio.create_task(beat(answer["beat_s"]))
            await gone.wait()
            beating.cancel()
        finally:
            await sio.disconnect()

    def hello(self) -> dict[str, Any]:
        held = {serial for lease in self.leases.values() for serial in lease["fences"]}
        devices = [self.device(serial, "reserved" if serial in held else "available") for serial in self.fences]
        about = {"name": self.name, "url": self.url, "version": "0", "boot": "1", "kinds": KINDS, "draining": False}
        return {**about, "devices": devices, "leases": list(self.leases)}

    def assign(self, lease: Mapping[str, Any]) -> dict[str, Any]:
        stale = {serial: "stale_fence" for serial, fence in lease["fences"].items() if fence <= self.fences[serial]}
        if lease["id"] not in self.leases and stale:
            return {"ok": True, "refused": stale}
        self.leases[lease["id"]] = lease
        self.fences |= lease["fences"]
        return {"ok": True}


async def follow(worker: LineWorker, controls: list[str], ready: asyncio.Event) -> None:
    while True:
        for control in controls:
            with contextlib.suppress(socketio.exceptions.SocketIOError, OSError, TimeoutError):
                await worker.hold(control, ready)
        await asyncio.sleep(0.2)


async def main(controls: list[str], workers: int, devices: int) -> None:
    # Somebody must listen at the advertised address, or control takes a worker whose line is gone for dead.
    listening = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    async with asyncio.TaskGroup() as group:
        events = []
        for number in range(workers):
            events.append(asyncio.Event())
            group.create_task(follow(LineWorker(f"w{number:02d}", url, devices), controls, events[-1]))
        for event in events:
            await event.wait()
        print(f"ready {url}", flush=True)


asyncio.run(main(sys.argv[1].split(","), int(sys.argv[2]), int(sys.argv[3])))
