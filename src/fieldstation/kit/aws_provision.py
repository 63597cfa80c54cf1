"""Fleet provisioning by claim: a device with a shared claim certificate gets a certificate of its own."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from fieldstation.kit.aws_requests import AwsRequests
from fieldstation.kit.mqtt import MqttClient


@dataclass(frozen=True, slots=True)
class Provisioned:
    """What a device needs from now on: its name, and the files that prove it."""

    thing: str
    certificate: Path
    key: Path


async def provision(
    mqtt: MqttClient, template: str, parameters: dict[str, str], folder: Path, *, timeout_s: float = 10.0
) -> Provisioned:
    """Ask for a certificate and register the thing; `mqtt` is connected with the claim certificate.

    Writes `certificate.pem` and `private.key` (readable by the owner only) into `folder`, whole or not at all.
    """
    requests = AwsRequests(mqtt, timeout_s)
    made = await requests.ask("$aws/certificates/create/json", {}, with_token=False)
    registered = await requests.ask(
        f"$aws/provisioning-templates/{template}/provision/json",
        {"certificateOwnershipToken": made["certificateOwnershipToken"], "parameters": parameters},
        with_token=False,
    )
    certificate, key = await asyncio.to_thread(_keep, folder, made["certificatePem"], made["privateKey"])
    return Provisioned(str(registered["thingName"]), certificate, key)


def _keep(folder: Path, certificate: str, key: str) -> tuple[Path, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    return _write(folder / "certificate.pem", certificate, 0o644), _write(folder / "private.key", key, 0o600)


def _write(path: Path, text: str, mode: int) -> Path:
    part = path.with_name(path.name + ".part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    return path
