"""Jobs of AWS IoT, the device's side: what is pending, start the next one, report how it went."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from fieldstation.kit.aws_requests import AwsRequests
from fieldstation.kit.mqtt import Message, MqttClient

Status = Literal["IN_PROGRESS", "SUCCEEDED", "FAILED", "REJECTED"]


@dataclass(frozen=True, slots=True)
class Job:
    """One job execution: its document is what the operator wrote."""

    id: str
    document: dict[str, Any]
    status: str
    version: int


class Jobs:
    """The jobs of one thing."""

    def __init__(self, mqtt: MqttClient, thing: str, *, timeout_s: float = 10.0) -> None:
        self._mqtt = mqtt
        self._requests = AwsRequests(mqtt, timeout_s)
        self._topic = f"$aws/things/{thing}/jobs"

    async def pending(self) -> list[str]:
        """Return the ids of the jobs that run or wait, in the order to do them."""
        answer = await self._requests.ask(f"{self._topic}/get", {})
        listed = [*answer.get("inProgressJobs", ()), *answer.get("queuedJobs", ())]
        return [str(entry["jobId"]) for entry in listed]

    async def start_next(self) -> Job | None:
        """Take the next job (it becomes IN_PROGRESS), None when there is none."""
        return _job((await self._requests.ask(f"{self._topic}/start-next", {})).get("execution"))

    async def get(self, job_id: str) -> Job | None:
        """Return one job."""
        answer = await self._requests.ask(f"{self._topic}/{job_id}/get", {"includeJobDocument": True})
        return _job(answer.get("execution"))

    async def update(self, job: Job, status: Status, **details: str) -> None:
        """Report how a job goes; refused when somebody else changed it meanwhile."""
        payload = {"status": status, "statusDetails": details, "expectedVersion": job.version}
        await self._requests.ask(f"{self._topic}/{job.id}/update", payload)

    async def on_next(self, callback: Callable[[Job | None], Awaitable[None] | None]) -> None:
        """Call `callback(job)` whenever another job becomes the next one (None: there is none left)."""

        async def heard(message: Message) -> None:
            result = callback(_job(message.json().get("execution")))
            if result is not None:
                await result

        await self._mqtt.subscribe(f"{self._topic}/notify-next", heard, qos=1)


def _job(execution: dict[str, Any] | None) -> Job | None:
    if not execution:
        return None
    return Job(
        id=str(execution["jobId"]),
        document=execution.get("jobDocument", {}),
        status=str(execution.get("status", "")),
        version=int(execution.get("versionNumber", 1)),
    )
