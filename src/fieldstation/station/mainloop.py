"""The running station: everything supervised, configs taken up, health told, until it is told to stop."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import threading
import time
from typing import Any

from fieldstation.core.errors import StoreError
from fieldstation.core.files import write_file
from fieldstation.station.agent import SUPERVISED, MessagingAgent, WriterLine, made_under
from fieldstation.station.changes import Changes, Step
from fieldstation.station.config import Config
from fieldstation.station.errors import StationConfigError
from fieldstation.station.health import HealthServer
from fieldstation.station.keeping import keep_house
from fieldstation.station.lifecycle import LifecycleManager
from fieldstation.station.logger import Logger
from fieldstation.station.memory import give_back
from fieldstation.station.messages import ConfigMessageBody
from fieldstation.station.place import Place
from fieldstation.station.project import Project, entrypoint_of, wanted_procedures
from fieldstation.station.status import snapshot
from fieldstation.station.store import DOCUMENTED_UPLINK
from fieldstation.station.supervisor import Supervisor, WriterProcess, reap_orphans
from fieldstation.station.systemd import Systemd
from fieldstation.station.updater import Updater
from fieldstation.station.updates.trial import Evidence

_SENDING = "fieldstation.station.sending:run"  # imported over there: the supervisor does without asyncio
_TICK_S = 0.1
_HOUSE_EVERY_S = 3600.0


class Station:
    """One run of a station, from the config to the tear-down."""

    def __init__(self, place: Place, project: Project) -> None:
        self._place = place
        self._project = project
        self._run_dir = place.data_dir / "run"
        self._stopping = threading.Event()
        self._systemd = Systemd()
        self._writer = WriterProcess(place.data_dir)
        self._config = self._load_config()
        made_under(self._config.general.config_revision)
        self._agent = MessagingAgent(deadline_s=60.0)
        self._logger = Logger(self._config, "main")
        self._supervisor: Supervisor | None = None
        self._since = self._calm_since = time.monotonic()
        self._deaths_seen = 0
        self._next_house = time.monotonic() + 60.0
        self._draining = False  # then the watchdog is fed meanwhile: to drain takes minutes

    def _load_config(self) -> Config:
        try:
            return self._project.load_config()
        except StationConfigError:
            # A config on trial that cannot be read any more is rolled back; any other is for a person to mend.
            trial = self._place.data_dir / "trial.json"
            if not trial.exists():
                raise
            previous = json.loads(trial.read_text())["previous_config"]
            return self._project.config_class.model_validate(previous)

    @property
    def config(self) -> Config:
        """The config in force."""
        return self._config

    def stop(self, *_: object) -> None:
        """Ask the main loop to end; safe in a signal handler."""
        self._stopping.set()

    def run(self) -> Step:
        """Work until stopped; returns `switch` when another version has to take over."""
        os.environ[SUPERVISED] = "1"
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.stop)
        orphans = reap_orphans(self._run_dir)
        self._writer.keep()
        self._writer.wait_ready()
        # In a thread of its own: the main loop stores messages too, and must not wait for a writer it would start.
        over = threading.Event()
        keeper = threading.Thread(target=self._keep_writer, args=(over,), name="writer-keeper", daemon=True)
        keeper.start()
        if orphans:
            self._logger.warning(f"ended processes that a killed supervisor left behind: {orphans}")
        health = HealthServer(self._config.health.port, self.snapshot)
        try:
            write_file(self._run_dir / "health.json", json.dumps({"url": health.url, "pid": os.getpid()}))
            return self._work(health)
        finally:
            health.close()
            (self._run_dir / "health.json").unlink(missing_ok=True)
            self._logger.teardown()
            over.set()
            keeper.join()
            self._writer.end()

    def _work(self, health: HealthServer) -> Step:
        changes = Changes(self._place, self._project, self._config, self._agent, self._logger, self.online)
        step = changes.take_up()
        if step == "switch":
            return step
        if step == "reload":
            self._reload(changes)
        self._register_uplinks()
        Updater(self._config).remove_old_venvs()
        self._logger.info(f"station {self._config.general.system_identifier} starts with the process id {os.getpid()}")
        self._tell_startup()
        step = self._start(changes)
        print(f"ready {health.url}", flush=True)  # noqa: T201 - the line that says so on standard output
        self._systemd.say("READY=1")
        give_back()
        try:
            while step != "switch" and not self._stopping.is_set():
                step = self._pass(changes)
        finally:
            self._systemd.say("STOPPING=1")
            self._logger.info("the station stops")
            changes.stop()
            self._end(drain=step != "switch")
        return step

    def _tell_startup(self) -> None:
        try:
            self._agent.add_message(ConfigMessageBody(status="startup", config=self._config.to_foreign_config()))
        except StoreError as error:
            # A full disk is no reason not to start: what is queued still has to be sent.
            self._logger.error(f"the start could not be told: {error}")

    def _pass(self, changes: Changes) -> Step:
        try:
            return self._once(changes)
        except Exception as error:
            # Nothing may end the loop that keeps everything else alive; it goes on, slower, and tells.
            self._logger.exception(error, label="Exception in main loop")
            self._stopping.wait(1.0)
            return "none"

    def _once(self, changes: Changes) -> Step:
        assert self._supervisor is not None
        self._wait()
        if self._stopping.is_set():
            return "none"
        self._supervisor.tend()
        self._systemd.alive()
        self._keep_house()
        step = changes.judge(self._evidence())
        if step == "none":
            step = changes.look()
        if step == "reload":
            self._end(drain=False)
            self._reload(changes)
            step = self._start(changes)
        return step

    def _wait(self) -> None:
        assert self._supervisor is not None
        lines = [c.manager for c in self._supervisor.charges if c.manager.fileno() >= 0]
        with contextlib.suppress(OSError, ValueError):
            select.select(lines, [], [], min(_TICK_S, self._supervisor.next_start_in_s()))

    def _reload(self, changes: Changes) -> None:
        try:
            self._config = self._project.load_config()
        except StationConfigError as error:
            changes.give_up(str(error))
            self._config = self._project.load_config()
        made_under(self._config.general.config_revision)
        self._logger = Logger(self._config, "main")
        changes.config_is(self._config, self._logger)
        self._register_uplinks()

    def _register_uplinks(self) -> None:
        names = list(self._config.all_uplinks()) or [DOCUMENTED_UPLINK]
        line = WriterLine(self._place.data_dir)
        line.ask(("uplinks", names))
        line.close()

    def _start(self, changes: Changes) -> Step:
        try:
            self._supervisor = Supervisor(self._config, self._managers(), self._run_dir)
        except (StationConfigError, ValueError, ImportError) as error:
            if changes.trial is None:
                raise
            step = changes.give_up(str(error))
            if step == "reload":
                self._reload(changes)
                self._supervisor = Supervisor(self._config, self._managers(), self._run_dir)
            return "switch" if step == "switch" else "none"
        self._since = self._calm_since = time.monotonic()
        self._deaths_seen = 0
        # Started before we say so: who stops us now finds an uplink that drains.
        self._supervisor.tend()
        return "none"

    def _managers(self) -> list[LifecycleManager]:
        procedures = [
            LifecycleManager(self._config, entrypoint_of(name, target), name, "procedure")
            for name, target in wanted_procedures(self._project, self._config).items()
        ]
        backends = [
            LifecycleManager(self._config, _SENDING, name, "backend", drain_s=section.max_drain_time)
            for name, section in self._config.all_uplinks().items()
        ]
        return procedures + backends

    def online(self) -> bool:
        """Say whether any uplink reaches its server."""
        if self._supervisor is None:
            return False
        return any(c.manager.status.get("connected") for c in self._supervisor.charges)

    def _evidence(self) -> Evidence:
        assert self._supervisor is not None
        now = time.monotonic()
        charges = self._supervisor.charges
        deaths = sum(charge.deaths for charge in charges)
        # Of a process that still imports its code nobody can say yet whether it runs.
        running = all(c.manager.procedure_is_running() and c.manager.status.get("state") == "running" for c in charges)
        if deaths != self._deaths_seen or not running:
            self._deaths_seen, self._calm_since = deaths, now
        return Evidence(
            running_s=now - self._since,
            calm_s=now - self._calm_since,
            deaths=deaths,
            all_running=running,
            online=self.online(),
        )

    def _end(self, *, drain: bool) -> None:
        if self._supervisor is not None:
            self._draining = True
            self._supervisor.end(drain=drain)
            self._draining = False

    def _keep_writer(self, over: threading.Event) -> None:
        while not over.wait(0.1):
            self._writer.keep()
            if self._draining:
                self._systemd.alive()

    def _keep_house(self) -> None:
        if time.monotonic() >= self._next_house:
            self._next_house = time.monotonic() + _HOUSE_EVERY_S
            threading.Thread(
                target=keep_house, args=(self._place.data_dir, self._config.retention), name="keeping", daemon=True
            ).start()

    def snapshot(self) -> dict[str, Any]:
        """Return what `status`, /health and /metrics show. Called from the health thread."""
        charges = self._supervisor.charges if self._supervisor is not None else []
        return snapshot(self._place, self._config, [c.report() for c in charges], self._writer.pid)
