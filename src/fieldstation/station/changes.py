"""Configs that arrived: answered once, tried, kept or rolled back. The main loop calls in and does what it is told."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from fieldstation.core.files import write_file
from fieldstation.station.agent import MessagingAgent
from fieldstation.station.config import Config, ForeignConfig, as_data
from fieldstation.station.errors import StationConfigError
from fieldstation.station.logger import Logger
from fieldstation.station.messages import ConfigMessageBody
from fieldstation.station.place import Place
from fieldstation.station.project import Project
from fieldstation.station.state import StateInterface
from fieldstation.station.updater import local_source
from fieldstation.station.updates.answers import Answers, digest
from fieldstation.station.updates.decide import decide
from fieldstation.station.updates.pointer import point_to, starts_counted
from fieldstation.station.updates.trial import MAX_STARTS, Evidence, Trial, TrialFile, verdict
from fieldstation.station.version import Version

Step = Literal["none", "reload", "switch"]
Status = Literal["received", "accepted", "rejected"]


class Changes:
    """One at a time: while a config is on trial or a version is prepared, the next ones wait."""

    def __init__(
        self, place: Place, project: Project, config: Config, agent: MessagingAgent, logger: Logger,
        online: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._place = place
        self._project = project
        self._config = config
        self._agent = agent
        self._logger = logger
        self._online = online
        self._answers = Answers(place.data_dir)
        self._file = TrialFile(place.data_dir)
        self._stamp: tuple[int, int] | None = None
        self._preparing: tuple[subprocess.Popen[str], ForeignConfig, str] | None = None
        self.trial = self._file.load()

    # -- at the start

    def take_up(self) -> Step:
        """Go on where the last process was cut off; `switch` when it has to be the other version."""
        for fingerprint, message_id, message in self._answers.untold():
            self._agent.add_once(message_id, message)
            self._answers.told(fingerprint)
        trial = self.trial
        if trial is None:
            return "none"
        if trial.kind == "version" and self._place.version != trial.to_version:
            return self._resume_switch(trial)
        if self._config.general.config_revision != trial.revision:
            # Cut off before the new config was written (it is still pending), or after the old one was restored.
            self._end_trial()
            return "none"
        if self._answers.status_of(trial.digest) == "rejected":
            return self._roll_back("it was rolled back before")  # cut off between the answer and the old config
        if trial.starts >= MAX_STARTS:
            return self._roll_back(f"it was started {trial.starts} times and did not stay up")
        self.trial = dataclasses.replace(trial, starts=trial.starts + 1)
        self._file.save(self.trial)
        return "none"

    def _resume_switch(self, trial: Trial) -> Step:
        if starts_counted(self._place) > 0 or trial.starts > 0:
            # We are what was in force before, and were started: the new version did not come up.
            return self._roll_back(f"version {trial.to_version} did not start")
        point_to(self._place, Version(trial.to_version), fallback=Path(trial.from_dir))
        return "switch"

    # -- while running

    def look(self) -> Step:
        """Take up pending configs, and the end of a preparation."""
        if self._preparing is not None:
            return self._look_at_preparation()
        if self.trial is not None or not self._has_changed():
            return "none"
        for foreign in StateInterface.load().pending_configs:
            try:
                step = self._take(foreign)
            except Exception:
                self._stamp = None  # looked at again: it is still pending
                raise
            if self._is_preparing():
                # It stays pending until it is decided, so a power cut only costs the preparation.
                break
            self._settle(foreign)
            if step != "none":
                return step
        return "none"

    def judge(self, evidence: Evidence) -> Step:
        """Keep what is on trial when it has proved itself; roll it back when its time is over."""
        if self.trial is None:
            return "none"
        health = self._config.health
        window_s = health.config_window_seconds if self.trial.kind == "config" else health.version_window_seconds
        keep, reason = verdict(self.trial, evidence, window_s, health.settle_seconds)
        if keep is None:
            return "none"
        if not keep:
            return self._roll_back(reason)
        self._logger.info(f"the config of revision {self.trial.revision} has proved itself and is in force")
        if self.trial.kind == "version":
            point_to(self._place, Version(self.trial.to_version))
            write_file(self._place.data_dir / "previous-version", self.trial.from_dir + "\n")
        else:
            text = json.dumps(self.trial.previous_config, indent=4) + "\n"
            write_file(self._place.data_dir / "previous-config.json", text, mode=0o600)
        self._answer(self._config.to_foreign_config(), self.trial.digest, "accepted")
        self._end_trial()
        return "none"

    def give_up(self, reason: str) -> Step:
        """Roll back because what is on trial cannot even be loaded."""
        return self._roll_back(reason)

    def config_is(self, config: Config, logger: Logger) -> None:
        """Go by `config` from now on."""
        self._config, self._logger = config, logger

    def stop(self) -> None:
        """End a preparation that is under way; its config stays pending."""
        if self._preparing is not None:
            self._preparing[0].terminate()
            self._preparing[0].wait()
            if self._preparing[0].stdout:
                self._preparing[0].stdout.close()

    # -- parts

    def _is_preparing(self) -> bool:
        return self._preparing is not None

    def _has_changed(self) -> bool:
        try:
            status = (self._place.data_dir / "state.json").stat()
        except FileNotFoundError:
            return False
        stamp = (status.st_mtime_ns, status.st_ino)
        changed, self._stamp = stamp != self._stamp, stamp
        return changed

    def _settle(self, foreign: ForeignConfig) -> None:
        with StateInterface.update() as state:
            state.pending_configs = [other for other in state.pending_configs if other != foreign]

    def _take(self, foreign: ForeignConfig) -> Step:
        fingerprint = digest(foreign.model_dump(mode="json"))
        before = self._answers.status_of(fingerprint)
        local = local_source(self._place.data_dir, foreign.general.software_version) is not None
        decision = decide(foreign, self._config, self._place.version, before, local_source=local)
        revision = foreign.general.config_revision
        self._logger.info(f"a config of revision {revision} arrived: {decision.action}", decision.reason or None)
        if decision.action == "in_force":
            self._answer(foreign, fingerprint, "accepted")
        elif decision.action == "reject":
            self._answer(foreign, fingerprint, "rejected", decision.reason)
        if decision.foreign is None:
            return "none"
        if before is None:
            self._answer(foreign, fingerprint, "received")
        if decision.action == "config":
            return self._try_config(decision.foreign, fingerprint)
        self._prepare(decision.foreign, foreign)
        return "none"

    def _try_config(self, foreign: ForeignConfig, fingerprint: str) -> Step:
        try:
            config = self._project.config_class.load_from_string(foreign.model_dump_json())
        except StationConfigError as error:
            self._answer(foreign, fingerprint, "rejected", str(error))
            return "none"
        self._begin_trial("config", foreign, fingerprint)
        try:
            config.dump()
        except OSError as error:
            self._end_trial()
            self._answer(foreign, fingerprint, "rejected", f"the config could not be written: {error}")
            return "none"
        return "reload"

    def _begin_trial(self, kind: Literal["config", "version"], foreign: ForeignConfig, fingerprint: str) -> None:
        version = foreign.general.software_version.as_identifier()
        self.trial = Trial(
            kind=kind,
            digest=fingerprint,
            revision=foreign.general.config_revision,
            from_version=self._place.version,
            to_version=version,
            from_dir=str(self._place.project_dir),
            to_dir=str(self._place.project_dir if kind == "config" else self._place.root_dir / version),
            previous_config=as_data(self._config),
            # A station that has a server must reach it again; one that is offline anyway is not asked to.
            needs_broker=self._online(),
        )
        self._file.save(self.trial)

    def _prepare(self, filled: ForeignConfig, pending: ForeignConfig) -> None:
        # In a process of its own: download, installation and tests take minutes, and their memory is given back.
        process = subprocess.Popen(
            [sys.executable, "-m", "fieldstation.station.prepare"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        with process.stdin:
            process.stdin.write(filled.model_dump_json())
        self._preparing = (process, pending, digest(pending.model_dump(mode="json")))

    def _look_at_preparation(self) -> Step:
        assert self._preparing is not None
        process, foreign, fingerprint = self._preparing
        if process.poll() is None:
            return "none"
        self._preparing, self._stamp = None, None
        output = process.stdout.read() if process.stdout else ""
        if process.stdout:
            process.stdout.close()
        if process.returncode != 0:
            said = output.strip().splitlines()
            self._answer(foreign, fingerprint, "rejected", said[-1] if said else "the preparation ended without a word")
            self._settle(foreign)
            return "none"
        self._begin_trial("version", foreign, fingerprint)
        self._settle(foreign)
        point_to(self._place, foreign.general.software_version, fallback=self._place.project_dir)
        return "switch"

    def _roll_back(self, reason: str) -> Step:
        trial = self.trial
        assert trial is not None
        self._logger.error(f"the config of revision {trial.revision} is rolled back: {reason}")
        general = {**trial.previous_config["general"], "config_revision": trial.revision}
        tried = ForeignConfig.model_validate({"general": {**general, "software_version": trial.to_version}})
        # The answer first: cut off here, the station starts the trial's end again and gives the same answer.
        self._answer(tried, trial.digest, "rejected", f"rolled back: {reason}")
        if trial.kind == "config":
            text = json.dumps(trial.previous_config, indent=4) + "\n"
            write_file(self._place.config_file, text, mode=0o600)
            self._end_trial()
            return "reload"
        point_to(self._place, Version(trial.from_version), directory=trial.from_dir)
        self._end_trial()
        return "none" if self._place.version == trial.from_version else "switch"

    def _end_trial(self) -> None:
        self.trial = None
        self._stamp = None  # configs that came meanwhile are looked at now
        self._file.clear()

    def _answer(self, foreign: ForeignConfig, fingerprint: str, status: Status, reason: str | None = None) -> None:
        config: Any = foreign.model_dump(mode="json")
        message = ConfigMessageBody(status=status, config=config, reason=reason).model_dump_json()
        message_id = self._answers.remember(fingerprint, foreign.general.config_revision, status, reason, message)
        self._agent.add_once(message_id, message)
        self._answers.told(fingerprint)
