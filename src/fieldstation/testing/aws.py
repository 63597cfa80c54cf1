"""The rules of AWS IoT that a plain broker lacks: shadows, jobs, provisioning. Runs as a client of the test's broker.

The rules for shadows (merging, null deletes, delta, versions, 404 and 409) are those of AWS's documentation.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from fieldstation.kit.mqtt import Message, MqttClient

_SHADOW = re.compile(r"\$aws/things/([^/]+)/shadow(?:/name/([^/]+))?/(get|update|delete)")
_JOBS = re.compile(r"\$aws/things/([^/]+)/jobs/(?:(get|start-next)|([^/]+)/(get|update))")
_PROVISION = re.compile(r"\$aws/provisioning-templates/([^/]+)/provision/json")


class _RejectedError(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class _Document:
    version: int = 0
    state: dict[str, Any] | None = None


@dataclass
class FakeJob:
    """One job of a thing, as the operator made it and the device reported it."""

    id: str
    document: dict[str, Any]
    status: str = "QUEUED"
    version: int = 1
    details: dict[str, str] = field(default_factory=dict)


class AwsIotRules:
    """`await AwsIotRules(client).start()` on a connected client that may read and write `$aws/#`."""

    def __init__(self, mqtt: MqttClient, issue: Callable[[str], tuple[str, str]] | None = None) -> None:
        self._mqtt = mqtt
        self._issue = issue or (lambda thing: ("certificate of " + thing, "key of " + thing))
        self._shadows: dict[tuple[str, str | None], _Document] = {}
        self.jobs: dict[str, list[FakeJob]] = {}
        self.things: list[str] = []

    async def start(self) -> None:
        """Subscribe to the requests."""
        for pattern in (
            "$aws/things/+/shadow/+",
            "$aws/things/+/shadow/name/+/+",
            "$aws/things/+/jobs/+",
            "$aws/things/+/jobs/+/+",
            "$aws/certificates/create/json",
            "$aws/provisioning-templates/+/provision/json",
        ):
            await self._mqtt.subscribe(pattern, self._heard, qos=1)

    async def _heard(self, message: Message) -> None:
        if message.topic.endswith(("/accepted", "/rejected", "/delta", "/documents", "/notify", "/notify-next")):
            return
        token: dict[str, Any] = {}
        try:
            try:
                body = message.json() if message.payload else {}
            except ValueError:
                raise _RejectedError(400, "Payload contains invalid json") from None
            if not isinstance(body, dict):
                raise _RejectedError(400, "Payload contains invalid json")
            token = {"clientToken": body["clientToken"]} if "clientToken" in body else {}
            answer = await self._answer(message.topic, body)
        except _RejectedError as error:
            await self._say(f"{message.topic}/rejected", {"code": error.code, "message": str(error)} | token)
        else:
            if answer is not None:
                await self._say(f"{message.topic}/accepted", answer | token)

    async def _answer(self, topic: str, body: dict[str, Any]) -> dict[str, Any] | None:
        if found := _SHADOW.fullmatch(topic):
            return await self._shadow(topic.rpartition("/")[0], (found[1], found[2]), found[3], body)
        if found := _JOBS.fullmatch(topic):
            return await self._job(found[1], found[2] or found[4], found[3], body)
        if topic == "$aws/certificates/create/json":
            thing = f"claimed-{len(self.things) + 1}"
            certificate, key = self._issue(thing)
            return {
                "certificateId": "0" * 64,
                "certificatePem": certificate,
                "privateKey": key,
                "certificateOwnershipToken": f"token of {thing}",
            }
        if _PROVISION.fullmatch(topic):
            owned = str(body.get("certificateOwnershipToken", ""))
            if not owned.startswith("token of "):
                raise _RejectedError(403, "Invalid certificate ownership token")
            self.things.append(owned.removeprefix("token of "))
            return {"thingName": self.things[-1], "deviceConfiguration": {}}
        return None

    # -- shadows

    async def _shadow(self, topic: str, key: tuple[str, str | None], verb: str, body: dict[str, Any]) -> dict[str, Any]:
        document = self._shadows.setdefault(key, _Document())
        now = int(time.time())
        if verb == "update":
            return await self._update(topic, document, body, now)
        if document.state is None:
            raise _RejectedError(404, f"No shadow exists with name: '{key[0]}'")
        if verb == "delete":
            document.state = None
            return {"version": document.version, "timestamp": now}
        delta = difference(document.state)
        return {
            "state": document.state | ({"delta": delta} if delta else {}),
            "version": document.version,
            "timestamp": now,
        }

    async def _update(self, topic: str, document: _Document, body: dict[str, Any], now: int) -> dict[str, Any]:
        state = body.get("state")
        if not isinstance(state, dict) or not set(state) <= {"desired", "reported"}:
            raise _RejectedError(400, "Missing required node: state")
        if "version" in body and body["version"] != document.version:
            raise _RejectedError(409, "Version conflict")
        before = deepcopy(document.state)
        document.state = merge(document.state or {}, state)
        document.version += 1
        if delta := difference(document.state):
            await self._say(f"{topic}/update/delta", {"version": document.version, "timestamp": now, "state": delta})
        await self._say(
            f"{topic}/update/documents",
            {"previous": {"state": before or {}}, "current": {"state": document.state, "version": document.version}},
        )
        return {"state": state, "version": document.version, "timestamp": now}

    # -- jobs

    async def add_job(self, thing: str, job: FakeJob) -> None:
        """Give a thing one more job and tell it."""
        self.jobs.setdefault(thing, []).append(job)
        await self._notify(thing)

    def _next(self, thing: str) -> FakeJob | None:
        open_jobs = [j for j in self.jobs.get(thing, ()) if j.status in ("QUEUED", "IN_PROGRESS")]
        return min(open_jobs, key=lambda j: j.status != "IN_PROGRESS", default=None)

    async def _notify(self, thing: str) -> None:
        upcoming = self._next(thing)
        body = {"timestamp": int(time.time())} | ({"execution": _execution(upcoming)} if upcoming else {})
        await self._say(f"$aws/things/{thing}/jobs/notify-next", body)

    async def _job(self, thing: str, verb: str, job_id: str | None, body: dict[str, Any]) -> dict[str, Any]:
        jobs = self.jobs.setdefault(thing, [])
        if job_id is None and verb == "get":
            listed: dict[str, list[dict[str, Any]]] = {"IN_PROGRESS": [], "QUEUED": []}
            for job in jobs:
                listed.get(job.status, []).append({"jobId": job.id, "versionNumber": job.version})
            return {"inProgressJobs": listed["IN_PROGRESS"], "queuedJobs": listed["QUEUED"]}
        if verb == "start-next":
            upcoming = self._next(thing)
            if upcoming is None:
                return {}
            if upcoming.status == "QUEUED":
                upcoming.status, upcoming.version = "IN_PROGRESS", upcoming.version + 1
            return {"execution": _execution(upcoming)}
        found = next((j for j in jobs if j.id == job_id), None)
        if found is None:
            raise _RejectedError(404, f"JobExecution [{job_id}] does not exist")
        if verb == "get":
            return {"execution": _execution(found)}
        if body.get("expectedVersion", found.version) != found.version:
            raise _RejectedError(409, "VersionMismatch")
        if found.status in ("SUCCEEDED", "FAILED", "REJECTED"):
            raise _RejectedError(409, "InvalidStateTransition")
        found.status, found.details, found.version = body["status"], body.get("statusDetails", {}), found.version + 1
        if found.status in ("SUCCEEDED", "FAILED", "REJECTED"):
            await self._notify(thing)
        return {}

    async def _say(self, topic: str, body: dict[str, Any]) -> None:
        await self._mqtt.publish(topic, json.dumps(body), 1)


def _execution(job: FakeJob) -> dict[str, Any]:
    return {"jobId": job.id, "status": job.status, "versionNumber": job.version, "jobDocument": job.document}


def merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return `old` with `new` merged in: objects level by level, None deletes, anything else replaces."""
    merged = dict(old)
    for key, value in new.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            below = merge(merged[key] if isinstance(merged.get(key), dict) else {}, value)
            merged[key] = below
        else:
            merged[key] = value
    return merged


def difference(state: dict[str, Any]) -> dict[str, Any]:
    """Return what is desired and reported otherwise (or not at all), as AWS's delta."""
    return _difference(state.get("desired", {}), state.get("reported", {}))


def _difference(desired: dict[str, Any], reported: dict[str, Any]) -> dict[str, Any]:
    delta: dict[str, Any] = {}
    for key, value in desired.items():
        if key not in reported:
            delta[key] = value
        elif isinstance(value, dict) and isinstance(reported[key], dict):
            if below := _difference(value, reported[key]):
                delta[key] = below
        elif value != reported[key]:
            delta[key] = value
    return delta
