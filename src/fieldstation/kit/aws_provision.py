"""Fleet provisioning by claim: a device with a shared claim certificate gets a certificate of its own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from fieldstation.core.files import write_file
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
    files = folder / "certificate.pem", folder / "private.key"
    write_file(files[0], certificate)
    write_file(files[1], key, 0o600)
    return files
