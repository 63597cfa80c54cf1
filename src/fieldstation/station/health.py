"""`/health` (JSON) and `/metrics` (Prometheus text) on a loopback port, without a web framework."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fieldstation.core.errors import FieldstationError
from fieldstation.core.metrics import CONTENT_TYPE, Family, exposition

Snapshot = Mapping[str, Any]


class PortTakenError(FieldstationError):
    """The port {port} for /health and /metrics cannot be used: {problem}. Set another `health.port`."""


class HealthServer:
    """Answers GETs in a thread of its own, so that a slow reader does not hold up the supervisor."""

    def __init__(self, port: int, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._listener.bind(("127.0.0.1", port))
        except OSError as error:
            raise PortTakenError(port=port, problem=error.strerror) from error
        self._listener.listen(16)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, name="health", daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self._listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), line:
                line.settimeout(2.0)
                request = line.recv(8192).decode("latin-1")
                path = [*request.split(" "), "", ""][1].partition("?")[0]
                line.sendall(self._response(path))

    def _response(self, path: str) -> bytes:
        kind, status, body = "application/json", "404 Not Found", '{"error": "try /health or /metrics"}'
        if path == "/health":
            snapshot = self._snapshot()
            status, body = "200 OK" if snapshot.get("ok") else "503 Service Unavailable", json.dumps(snapshot)
        elif path == "/metrics":
            kind, status, body = CONTENT_TYPE, "200 OK", metrics(self._snapshot())
        payload = body.encode()
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(payload)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + payload


def health_url(data_dir: Path) -> str | None:
    """Return the address at which a running station tells how it is."""
    try:
        return str(json.loads((data_dir / "run" / "health.json").read_text())["url"])
    except (OSError, ValueError, KeyError):
        return None


def told_by(data_dir: Path) -> dict[str, Any] | None:
    """Return what the running station of this folder tells of itself, or None when none answers."""
    import urllib.error  # more than a megabyte, of which the supervisor needs nothing
    import urllib.request

    url = health_url(data_dir)
    if url is None:
        return None
    try:
        with urllib.request.urlopen(url + "/health", timeout=5) as response:  # noqa: S310 - our own loopback address
            return dict(json.load(response))
    except urllib.error.HTTPError as error:  # 503 says that something is wrong; the body says what
        return dict(json.load(error))
    except (OSError, ValueError):
        return None


def metrics(snapshot: Snapshot) -> str:
    """Return the snapshot in Prometheus' text format."""
    processes, queues = snapshot.get("processes", []), snapshot.get("queues", {})

    def by_process(value: str) -> list[tuple[dict[str, str], float]]:
        return [({"name": str(process["name"])}, float(process[value])) for process in processes]

    def by_uplink(value: str) -> list[tuple[dict[str, str], float]]:
        return [({"uplink": str(name)}, float(queue[value] or 0)) for name, queue in queues.items()]

    families: dict[str, Family] = {
        "up": ("gauge", "1 while all is well.", [({}, float(bool(snapshot.get("ok"))))]),
        "config_revision": ("gauge", "The config in force.", [({}, float(snapshot.get("revision", -1)))]),
        "process_running": ("gauge", "1 while the process runs.", by_process("running")),
        "process_deaths_total": ("counter", "Unexpected ends of the process.", by_process("deaths")),
        "queue_depth": ("gauge", "Messages owed to the uplink.", by_uplink("depth")),
        "queue_oldest_seconds": ("gauge", "Age of the oldest message owed.", by_uplink("oldest_age_s")),
        "uplink_connected": ("gauge", "1 while the server is reached.", by_uplink("connected")),
        "delivered_total": ("counter", "Messages acknowledged by the server since the start.", by_uplink("delivered")),
    }
    return exposition({f"fieldstation_station_{name}": family for name, family in families.items()})
