"""A worker for small devices: polls a Prefect work pool, runs approved commands, reports. Standard library only.

It runs the deployments of commands (`run_command_on_worker`) and leaves those of Python flows to Prefect's worker.
A journal on disk remembers what it was running: after a crash that is reported, and repeated only when allowed.
"""

from __future__ import annotations

import json
import logging
import shlex
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fieldstation.core.errors import FieldstationError
from fieldstation.core.files import state_folder, write_file
from fieldstation.core.retry import Backoff
from fieldstation.flow.errors import BadRequestError, PrefectUnreachableError
from fieldstation.flow.prefect_api import COMMAND_ENTRYPOINT, FINAL, PrefectApi, as_markdown
from fieldstation.flow.running import checked, run_action

log = logging.getLogger(__name__)

HEARTBEAT_S = 30.0


class PoolMissingError(FieldstationError):
    """There is no work pool {pool} at {url}. Create it with: prefect work-pool create {pool} --type process"""


class LightWorker:
    """`run` polls until `stop` is set. One command at a time."""

    def __init__(
        self,
        pool: str,
        *,
        api: PrefectApi | None = None,
        name: str | None = None,
        state_dir: Path | None = None,
        every_s: float = 5.0,
    ) -> None:
        self.pool = pool
        self.name = name or f"light-{socket.gethostname()}"
        self.stopping = threading.Event()
        self._api = api or PrefectApi()
        self._every_s = every_s
        self._journal = (state_dir or state_folder()) / f"flow-worker-{pool}.json"
        self._ours: dict[str, bool] = {}
        self._beat_at = 0.0

    def start(self) -> None:
        """Find the pool, and report what a crash of this worker left behind."""
        if self._api.pool(self.pool) is None:
            raise PoolMissingError(pool=shlex.quote(self.pool), url=self._api.url)
        self._journal.parent.mkdir(parents=True, exist_ok=True)
        self._beat()
        self._recover()

    def run(self) -> None:
        """Poll and run until stopped; a server that is away is waited for."""
        failures, backoff = 0, Backoff(initial_s=self._every_s, ceiling_s=60.0)
        while not self.stopping.is_set():
            try:
                self._beat()
                for run in self._api.scheduled(self.pool):
                    if self.stopping.is_set():
                        return
                    if self._is_ours(run):
                        self._take(run)
                failures, pause = 0, self._every_s
            except PrefectUnreachableError as error:
                log.warning("%s", error)
                pause = backoff.delay(failures)
                failures += 1
            self.stopping.wait(pause)

    def stop(self) -> None:
        """End; a command that runs is stopped and reported."""
        self.stopping.set()

    def _beat(self) -> None:
        if time.monotonic() - self._beat_at > HEARTBEAT_S or not self._beat_at:
            self._api.heartbeat(self.pool, self.name, HEARTBEAT_S)
            self._beat_at = time.monotonic()

    def _is_ours(self, run: dict[str, Any]) -> bool:
        deployment = str(run.get("deployment_id"))
        if deployment not in self._ours:
            entrypoint = self._api.deployment(deployment).get("entrypoint")
            self._ours[deployment] = entrypoint == COMMAND_ENTRYPOINT
            if not self._ours[deployment]:
                log.warning("the deployment %s is a Python flow; this light worker leaves it to others", deployment)
        return self._ours[deployment]

    # -- one run

    def _take(self, run: dict[str, Any]) -> None:
        identity = str(run["id"])
        # The version that Prefect's rules guard: of two workers only one gets from Scheduled to Pending.
        if not self._api.set_state(identity, "PENDING", "Pending", f"taken by {self.name}"):
            return
        parameters = run.get("parameters") or {}
        self._write({"run": identity, "parameters": parameters, "claimed": False})
        if self._api.set_state(identity, "RUNNING", "Running"):
            self._execute(identity, parameters, claimed=False)
        self._journal.unlink(missing_ok=True)

    def _execute(self, identity: str, parameters: dict[str, Any], *, claimed: bool) -> None:
        action, approval = parameters.get("action"), parameters.get("approval")
        stop, over = threading.Event(), threading.Event()
        watcher = threading.Thread(target=self._watch, args=(identity, stop, over), daemon=True)
        watcher.start()
        try:
            if not isinstance(action, dict):
                raise BadRequestError(field="action", problem="it is missing")
            result = run_action(
                action,
                approval,
                pool=self.pool,
                claimed=claimed,
                stop=stop,
                on_claimed=lambda: self._write({"run": identity, "parameters": parameters, "claimed": True}),
            )
        except FieldstationError as error:
            problem = str(error)
            log.warning("run %s: %s", identity, problem)
            self._report(lambda: self._api.set_state(identity, "FAILED", "Refused", problem))
            return
        finally:
            over.set()
        arguments, _ = checked(action)
        command, outcome = shlex.join(arguments), result.as_json()
        log.info("run %s: %s ended with %s", identity, command, result.exit_code)
        self._report(lambda: self._api.put_artifact(identity, outcome, as_markdown(command, outcome)))
        if result.stopped:
            kind, name = ("CRASHED", "Crashed") if self.stopping.is_set() else ("CANCELLED", "Cancelled")
        elif result.timed_out:
            kind, name = "FAILED", "TimedOut"
        else:
            kind, name = ("COMPLETED", "Completed") if result.ok else ("FAILED", "Failed")
        message = f"exit code {result.exit_code}" + (", the worker was stopped" if self.stopping.is_set() else "")
        self._report(lambda: self._api.set_state(identity, kind, name, message, force=result.stopped))

    def _watch(self, identity: str, stop: threading.Event, over: threading.Event) -> None:
        while not over.wait(1.0):
            if self.stopping.is_set():
                stop.set()
            try:
                self._beat()
                if self._api.run(identity)["state_type"] in ("CANCELLING", "CANCELLED"):
                    stop.set()
            except PrefectUnreachableError:
                continue  # the command goes on; what became of it is reported when the server is back

    def _report(self, call: Callable[[], object]) -> None:
        backoff = Backoff(initial_s=1.0, ceiling_s=30.0)
        for attempt in range(1000):
            try:
                call()
                return
            except PrefectUnreachableError as error:
                if self.stopping.is_set() and attempt > 2:
                    return
                log.warning("not reported yet: %s", error)
                self.stopping.wait(backoff.delay(attempt))

    # -- after a crash

    def _write(self, entry: dict[str, Any]) -> None:
        write_file(self._journal, json.dumps(entry))

    def _recover(self) -> None:
        try:
            entry = json.loads(self._journal.read_text())
            identity, parameters, claimed = str(entry["run"]), entry["parameters"], bool(entry["claimed"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.error("the journal %s cannot be read and is set aside: %s", self._journal, error)
            self._journal.replace(self._journal.with_suffix(".broken"))
            return
        if self._api.run(identity)["state_type"] in FINAL:
            self._journal.unlink()
            return
        if (parameters.get("action") or {}).get("repeatable"):
            log.warning("run %s was cut by a crash of this worker; it may be repeated and is", identity)
            self._execute(identity, parameters, claimed=claimed)
        else:
            message = "The worker died while this ran; it is not repeated. Look at the device before you ask again."
            log.warning("run %s: %s", identity, message)
            self._api.set_state(identity, "CRASHED", "Crashed", message, force=True)
        self._journal.unlink()
