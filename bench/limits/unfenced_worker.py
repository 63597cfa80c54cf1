"""A worker that carries out whatever it is asked and hears no confirmation, to measure what both cost.

It exists here only: no setting of the product makes a worker like this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fieldstation.cli.main import main
from fieldstation.fleet import compose_worker
from fieldstation.fleet.delivery import Session
from fieldstation.fleet.wire.worker_socketio import WorkerSockets
from fieldstation.fleet.worker import Worker


class Unfenced(Worker):
    def request(self, session: Session, serial: str, event: str, contents: Mapping[str, Any]) -> None:
        hosted = self.devices.get(serial)
        assert hosted is not None
        hosted.machine.request(event, contents, lambda error: self.refuse(session, serial, error))


class Unconfirmed(WorkerSockets):
    async def _send_all(self) -> None:
        while True:
            sid, text, confirmed = await self._outgoing.get()
            if sid in self._sessions:
                await self.sio.emit("event", text, to=sid)
            confirmed()


compose_worker.Worker = Unfenced
compose_worker.WorkerSockets = Unconfirmed

if __name__ == "__main__":
    main()
