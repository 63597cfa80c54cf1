"""A whole pipeline on this machine: NATS, what the manifest needs on it, and the node processes under supervision."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fieldstation.core.files import write_file
from fieldstation.pipeline import manifest, state
from fieldstation.pipeline.broker import Broker, BrokerSettings
from fieldstation.pipeline.config import Nats
from fieldstation.pipeline.discover import command_for
from fieldstation.pipeline.errors import PipelineNotRunningError, PipelineRunningError
from fieldstation.pipeline.plan import Plan, ProcessPlan, make_plan
from fieldstation.pipeline.supervise import READY_S, Replica
from fieldstation.pipeline.wire.connection import connect, require_jetstream
from fieldstation.pipeline.wire.provision import provision

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PipelineSettings:
    """What to run and where. `nats` is an address of a server that runs already; empty starts our own."""

    manifest: Path
    product: str
    folder: Path
    nats: str = ""
    port: int = 0
    sync_interval: str = "always"
    replicas: int = 1  # of each stream, for a NATS cluster
    ack_wait_s: float = 30.0
    run: Mapping[str, str] = field(default_factory=dict)
    credentials: Mapping[str, str] = field(default_factory=dict)  # further `nats.*` keys for the nodes and for us


class PipelineService:
    """A service (core.service) that is a running pipeline."""

    def __init__(self, settings: PipelineSettings) -> None:
        self._settings = settings
        self.name = f"pipeline {settings.product}"
        self._manifest = manifest.load(settings.manifest)
        self._broker: Broker | None = None
        self._replicas: list[Replica] = []
        self._state = state.PipelineState(settings.product, str(settings.manifest.resolve()), "", os.getpid())
        self.plan: Plan

    @property
    def url(self) -> str:
        """Where NATS is."""
        return self._state.nats_url

    async def start(self) -> None:
        """Start NATS, create what the manifest needs and prepare the processes, which `run` starts."""
        settings = self._settings
        self._refuse_twice()
        for workflow in self._manifest.workflows:  # before anything is started: every process must have a program
            for spec in workflow.processes:
                self._command(spec.name, workflow.name, spec.image)
        if not settings.nats:
            self._broker = Broker(
                BrokerSettings(settings.folder / "nats", settings.port, sync_interval=settings.sync_interval)
            )
            await self._broker.start()
        self._state.nats_url = settings.nats or (self._broker.url if self._broker else "")
        await self.provision()
        self._write()
        for process in self.plan.processes:
            self._prepare(process)

    async def run(self) -> None:
        """Keep broker and processes running until cancelled."""
        async with asyncio.TaskGroup() as group:
            if self._broker is not None:
                group.create_task(self._broker.run())
            for replica in self._replicas:
                group.create_task(replica.run())

    async def until_ready(self) -> None:
        """Wait until every process has said it is ready; those that do not are named in the log."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                for replica in self._replicas:
                    await replica.ready.wait()
        late = [replica.name for replica in self._replicas if not replica.ready.is_set()]
        if late:
            log.warning("not ready after %g s: %s", READY_S, ", ".join(late))

    async def stop(self) -> None:
        """Stop triggers first, so that nothing new begins, then the rest, then NATS."""
        kinds = {process.name: process.kind for process in self.plan.processes} if hasattr(self, "plan") else {}
        for triggers in (True, False):
            chosen = [r for r in self._replicas if (kinds.get(r.state.process) == "trigger") is triggers]
            await asyncio.gather(*(replica.stop() for replica in chosen))
        if self._broker is not None:
            await self._broker.stop()
        if self._state.nats_url:
            state.remove(self._settings.folder)

    def health(self) -> dict[str, object]:
        """Say which processes run."""
        running = {replica.name: replica.state.state for replica in self._replicas}
        ok = all(value == "running" for value in running.values())
        return {"ok": ok, "nats": self._state.nats_url, "processes": running}

    def _refuse_twice(self) -> None:
        try:
            other = state.read(self._settings.folder, self._settings.product)
        except PipelineNotRunningError:
            return
        if state.is_alive(other.pid) and other.pid != os.getpid():
            raise PipelineRunningError(product=self._settings.product, pid=other.pid)

    async def provision(self) -> None:
        """Create on NATS what the manifest needs; what is there already stays as it is."""
        settings = self._settings
        self._state.nats_url = self._state.nats_url or settings.nats
        self.plan = make_plan(self._manifest, settings.product, self._state.nats_url)
        nats = Nats.model_validate({"url": self._state.nats_url, **settings.credentials})
        client = await connect(nats, name=f"{settings.product} manager")
        try:
            await require_jetstream(client, nats.url)
            await provision(
                client.jetstream(timeout=10),
                self.plan,
                replicas=settings.replicas,
                ack_wait_s=settings.ack_wait_s,
                url=nats.url,
            )
        finally:
            await client.close()

    def _prepare(self, process: ProcessPlan) -> None:
        settings = self._settings
        config_folder = settings.folder / "processes" / process.workflow / process.name
        config = {
            **process.config,
            "nats": {**process.config["nats"], **settings.credentials},
            "minio": {"folder": str(settings.folder / "objects")},
            "predictions": {"file": str(settings.folder / "predictions.sqlite")},
            "runner": {"subscriber": {"ack_wait_time": f"{settings.ack_wait_s:g}s"}},
        }
        # JSON is YAML; written for its owner only, because it may hold a password.
        write_file(config_folder / "app.yaml", json.dumps(config, indent=1), 0o600)
        for number in range(1, process.replicas + 1):
            entry = state.ReplicaState(process.workflow, process.name, number)
            self._state.replicas.append(entry)
            self._replicas.append(
                Replica(
                    entry,
                    self._command(process.name, process.workflow, process.image),
                    settings.manifest.resolve().parent,
                    config_folder,
                    settings.folder / "logs" / f"{process.workflow}-{process.name}-{number}.log",
                    self._write,
                )
            )

    def _command(self, process: str, workflow: str, image: str) -> list[str]:
        return command_for(process, workflow, image, self._settings.manifest.resolve().parent, self._settings.run)

    def _write(self) -> None:
        state.write(self._settings.folder, self._state)
