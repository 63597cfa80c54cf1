"""A program that uses a fleet under fire: reserves, evaluates, ends, over and over, and tries what it must not do.

Arguments: control's address, its name, a folder, a seed. Everything that it asks for and gets is a line in its journal,
written before it goes on. A line on stdin says that it is enough: it ends what it is at, and itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgpack
import socketio

from fieldstation.core.errors import FieldstationError
from fieldstation.fleet.client.evaluation import PulseCountEvaluation
from fieldstation.fleet.client.session import FleetClient
from fieldstation.fleet.sim import answer

BITSTREAM_BYTES = 104_090
HEAD_BYTES = 256
EVALUATIONS = 40  # at most, on each device, before it is given back
OLD_LEASES = 6  # that are tried again later


class Program:
    def __init__(self, url: str, name: str, folder: Path, seed: int) -> None:
        self.url = url
        self.name = name
        self.folder = folder / name
        self.folder.mkdir()
        self.journal = os.open(folder / f"{name}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.chance = random.Random(seed)
        self.enough = False
        self.number = 0
        self.old: list[tuple[str, str, str, int]] = []  # address, token, serial, fence
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        sys.stdin.readline()
        self.enough = True

    def note(self, event: str, **more: Any) -> None:
        more["at"] = round(time.time() % 10000, 2)
        os.write(self.journal, json.dumps({"event": event, **more}).encode() + b"\n")

    def bitstream(self, fences: dict[str, int], **more: Any) -> bytes:
        """A bitstream that says who commands with it."""
        self.number += 1
        head = json.dumps({"client": self.name, "n": self.number, "fences": fences, **more}).encode()
        assert len(head) < HEAD_BYTES
        rest = random.Random(self.number).randbytes(64)
        return (head.ljust(HEAD_BYTES, b"\0") + rest).ljust(BITSTREAM_BYTES, b"\xff")

    async def run(self) -> None:
        client = FleetClient(self.url, self.name)
        while True:
            try:
                await client.start()
                break
            except FieldstationError:
                if self.enough:
                    self.note("end")
                    return
                client = FleetClient(self.url, self.name)
        try:
            while not self.enough:
                await self.turn(client)
        finally:
            await client.close()
        self.note("end")

    async def turn(self, client: FleetClient) -> None:
        amount = self.chance.choice([1, 1, 2])
        kind = "pulsecount" if self.chance.random() < 0.9 else "juggling"
        self.note("ask", amount=amount, kind=kind)
        try:
            serials = await client.reserve(amount, kind=kind, wait_s=60, ready_timeout_s=60)
        except FieldstationError as error:
            self.note("refused", code=error.code, why=str(error))
            return
        held = {serial: client._held[serial] for serial in serials if serial in client._held}
        fences = {serial: one.row.fence for serial, one in held.items()}
        self.note("reserved", fences=fences)
        for serial, one in held.items():
            self.old.append((one.address, one.row.token, serial, one.row.fence))
        if fences:
            await self.evaluate(client, fences)
        for address, token, serial, fence in self.chance.sample(self.old[:-2], min(2, len(self.old[:-2]))):
            await self.intrude(address, token, serial, fence)
        del self.old[:-OLD_LEASES]
        mine = [serial for serial in serials if serial in client.serials]
        self.note("give back", serials=mine)
        try:
            ended = await client.end(mine)
        except FieldstationError as error:
            self.note("not ended", why=str(error))
            for serial in mine:  # it runs out by itself; we do not use it any more
                client.drop(serial)
        else:
            self.note("ended", serials=ended)

    async def evaluate(self, client: FleetClient, fences: dict[str, int]) -> None:
        expected: dict[str, tuple[int, dict[str, int]]] = {}
        asked = []
        for _ in range(self.chance.randint(1, EVALUATIONS)):
            data = self.bitstream(fences)
            file = self.folder / f"{self.number}.bin"
            file.write_bytes(data)
            one = PulseCountEvaluation(list(fences), file)
            expected[one.id] = (self.number, {serial: answer(data, serial) for serial in fences})
            asked.append(one)
        self.note("evaluate", numbers=[number for number, _ in expected.values()], serials=list(fences))
        try:
            async for result in client.evaluate(asked):
                number, values = expected[result.evaluation.id]
                outcome = {"why": result.reason} if result.failed else {"right": result.value == values[result.serial]}
                self.note("result", n=number, serial=result.serial, **outcome)
        except FieldstationError as error:
            # Nothing was sent: the device had been lost between its reservation and this.
            self.note("not evaluated", numbers=[n for n, _ in expected.values()], serials=list(fences), why=str(error))
        for one in asked:
            Path(one.filepath).unlink()

    async def intrude(self, address: str, token: str, serial: str, fence: int) -> None:
        """Command a device with a lease that is over, or with one that never was."""
        forged = self.chance.random() < 0.3
        socket = socketio.AsyncClient(reconnection=False, handle_sigint=False)
        data = self.bitstream({serial: fence}, intruder=True)
        contents = {"files": {f"{self.name}-{self.number}": data}, "batch_id": "intrusion"}
        message = msgpack.packb({"serial": serial, "event": "evaluate", "contents": contents})
        leases = [token[:-4] + "dead"] if forged else [token]
        auth = {"client_id": self.name, "fieldstation": "1", "leases": leases}
        told = "unanswered"
        with contextlib.suppress(TimeoutError, OSError, socketio.exceptions.SocketIOError):
            async with asyncio.timeout(5):
                await socket.connect(address, auth=auth, transports=["websocket"])
                reply = await socket.call("request", message, timeout=4)
                told = reply["error"]["code"] if "error" in reply else "accepted"
        with contextlib.suppress(TimeoutError, OSError, socketio.exceptions.SocketIOError):
            async with asyncio.timeout(1):
                await socket.disconnect()
        self.note("intrude", serial=serial, fence=fence, forged=forged, told=told)


if __name__ == "__main__":
    url, name, folder, seed = sys.argv[1:]
    asyncio.run(Program(url, name, Path(folder), int(seed)).run())
    os._exit(0)  # the thread that reads stdin never ends
