"""From configuration to a running worker."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import signal
from collections.abc import Callable
from importlib import metadata
from typing import Any

import socketio

from fieldstation import __version__
from fieldstation.core import plugins
from fieldstation.core.config import load
from fieldstation.core.errors import FieldstationError
from fieldstation.core.log import setup
from fieldstation.core.security import Principal, TokenFile, check_bind, is_loopback
from fieldstation.fleet.driver import Driver
from fieldstation.fleet.holding import LEASE_PREFIX
from fieldstation.fleet.ladder import Budgets
from fieldstation.fleet.power import Place, PowerHook
from fieldstation.fleet.states.care import CareSettings
from fieldstation.fleet.states.reservable import kind
from fieldstation.fleet.wire.guard import guarded
from fieldstation.fleet.wire.line import ControlLine, LogBacklog
from fieldstation.fleet.wire.server import HttpServer
from fieldstation.fleet.wire.worker_http import WorkerHttp
from fieldstation.fleet.wire.worker_socketio import WorkerSockets
from fieldstation.fleet.wire.worker_vitals import WorkerVitals
from fieldstation.fleet.worker import Worker
from fieldstation.fleet.worker_config import WorkerConfig, worker_config
from fieldstation.fleet.worker_store import WorkerStore

log = logging.getLogger(__name__)


def worker(config: WorkerConfig) -> WorkerService:
    """Return the worker, ready to be started."""
    return WorkerService(config)


def worker_asgi() -> Any:
    """Return a worker as an ASGI app whose life is its server's lifespan: `uvicorn --factory
    fieldstation.fleet.compose_worker:worker_asgi`. Settings come from the environment and the documented file; `host`
    and `port` must be what uvicorn listens on, unless `url` says where clients reach it."""
    config = worker_config()
    setup(os.environ.get("FIELDSTATION_LOG_LEVEL", "INFO"), file=config.log_file)
    return UnderAsgi(WorkerService(config))


def build_drivers(config: WorkerConfig) -> dict[str, Driver]:
    """Return the drivers that the configuration names, built with their settings."""
    built = {}
    firmware = {
        "default": config.firmware_default,
        "pulsecount": config.firmware_pulsecount,
        "variance": config.firmware_variance,
    }
    for name in config.driver:
        cls = plugins.load("drivers", name)
        values = dict(config.settings.get(name, {}))
        if cls.Settings is None:
            built[name] = cls()
            continue
        if "firmware" in cls.Settings.model_fields:
            values["firmware"] = {k: p for k, p in firmware.items() if p is not None} | values.get("firmware", {})
        built[name] = cls(load(cls.Settings, values=values, table=f"fleet.worker.{name}"))
    return built


def care_settings(config: WorkerConfig) -> CareSettings:
    """Return how devices are cared for."""
    care = config.care
    budgets = Budgets(care.retries, care.reflashes, care.power_cycles, care.window_s)
    places = {serial: Place(at.location, at.port) for serial, at in care.places.items()}
    hook = PowerHook(care.power_cycle, care.power_cycle_s, places) if care.power_cycle else None
    return CareSettings(budgets, care.check_s, hook, care.back_s)


def extra_kinds() -> dict[str, tuple[str, ...]]:
    """Return kind -> drivers it is for (none: all), of states registered in the group `fieldstation.states`."""
    found = {}
    for point in metadata.entry_points(group="fieldstation.states"):
        state = point.load()
        found[state.kind or point.name] = tuple(getattr(state, "drivers", ()))
    return found


class WorkerService:
    """A worker with its life (`core.service.Service`)."""

    name = "fleet worker"

    def __init__(self, config: WorkerConfig) -> None:
        self.config = config
        self.drivers = build_drivers(config)
        self._extra = extra_kinds()
        for name, driver in self.drivers.items():
            for offered in self._kinds(name, driver):
                kind(offered)  # raises for one that nobody defines
        self._tokens = TokenFile(config.tokens) if config.tokens is not None else None
        self._backlog = LogBacklog()
        self._store: WorkerStore | None = None
        self._server: HttpServer | None = None
        self._stopped = asyncio.Event()
        self.worker: Worker | None = None

    def _kinds(self, name: str, driver: Driver) -> tuple[str, ...]:
        extra = [offered for offered, drivers in self._extra.items() if not drivers or name in drivers]
        return tuple(dict.fromkeys([*driver.kinds, *extra]))

    @property
    def url(self) -> str:
        """Where it is reached from this machine."""
        assert self._server is not None
        return self._server.url

    async def start(self, *, listen: bool = True) -> None:
        """Open the store, take the port. Without `listen` somebody else's server serves `asgi`."""
        config = self.config
        has_tokens = self._tokens is not None and len(self._tokens) > 0
        check_bind(config.host, has_tokens=has_tokens, insecure=config.insecure)
        self._store = WorkerStore(config.folder / "worker.db")
        self.worker = Worker(
            config.name,
            self.drivers,
            self._store,
            version=__version__,
            kinds=self._kinds,
            labels=config.labels,
            config=config,
            care=care_settings(config),
        )
        self._sockets = WorkerSockets(self.worker, self._stopped.set)
        self.asgi = self._app()
        self._server = HttpServer(
            self.asgi,
            host=config.host,
            port=config.port,
            certificate=config.tls_certificate,
            key=config.tls_key,
        )
        self._listens = listen
        if listen:
            self._server.bind()
        self.worker.url = config.advertised(self._server.port, self._server.scheme)
        logging.getLogger("fieldstation").addHandler(self._backlog)

    def _app(self) -> Any:
        assert self.worker is not None
        config = self.config
        self._vitals = WorkerVitals(self.worker, needs_control=bool(config.control))
        whole = socketio.ASGIApp(self._sockets.sio, WorkerHttp(self.worker, self._vitals.routes()).app)
        return guarded(
            whole,
            self._authenticate,
            open_to_all=is_loopback(config.host),
            insecure=config.insecure,
            names={config.host, *config.allow_hosts},
            foreign=_is_lease,
        )

    async def _authenticate(self, token: str) -> Principal | None:
        return self._tokens.lookup(token) if self._tokens is not None else None

    async def run(self) -> None:
        """Work until cancelled, or until a graceful shutdown is through."""
        assert self.worker is not None
        assert self._server is not None
        config = self.config
        async with asyncio.TaskGroup() as group:
            spawn = functools.partial(self._spawn, group)
            tasks = [
                spawn(self.worker.run, "devices"),
                spawn(self._sockets.run, "sockets"),
            ]
            if self._listens:
                tasks.append(spawn(self._server.run, "server"))
            if config.control:
                token = config.control_token()
                line = ControlLine(self.worker, config.control, token=token, backlog=self._backlog)
                tasks.append(spawn(line.run, "line"))
            await self._stopped.wait()
            for task in tasks:
                task.cancel()

    def _spawn(self, group: asyncio.TaskGroup, run: Callable[[], Any], name: str) -> asyncio.Task[None]:
        return group.create_task(run(), name=f"{self.name}: {name}")

    async def stop(self) -> None:
        """Put on disk what is owed, and let go."""
        logging.getLogger("fieldstation").removeHandler(self._backlog)
        if self._server is not None:
            self._server.close()
        if self.worker is not None:
            await self._sockets.sio.shutdown()
            self.worker.delivery.persist_now()
        if self._store is not None:
            await asyncio.to_thread(self._store.close)

    def health(self) -> dict[str, object]:
        """Say how it is: devices by state, and whether control hears it."""
        return self._vitals.health()


def _is_lease(token: str) -> bool:
    # A lease in the address is for the sockets to judge; whether it is one or was made up, it opens nothing else.
    return token.startswith(LEASE_PREFIX)


class UnderAsgi:
    """A worker service as an ASGI app. After a graceful shutdown it asks the server's process to end, as ours does."""

    def __init__(self, service: WorkerService) -> None:
        self.service = service

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection, or the server's lifespan."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self.service.asgi(scope, receive, send)

    async def _live(self, receive: Any, send: Any) -> None:
        await receive()
        try:
            await self.service.start(listen=False)
        except FieldstationError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        stopping = False

        async def work() -> None:
            await self.service.run()
            if not stopping:
                signal.raise_signal(signal.SIGTERM)

        try:
            async with asyncio.TaskGroup() as group:
                working = group.create_task(work(), name=self.service.name)
                await send({"type": "lifespan.startup.complete"})
                await receive()
                stopping = True
                working.cancel()
        finally:
            await self.service.stop()
        await send({"type": "lifespan.shutdown.complete"})
