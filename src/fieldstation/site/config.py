"""The site file as data: one table for each role, and the settings of the capability that it starts.

A role's table takes every setting of its capability's own configuration, and `machine`: where it runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from fieldstation.fleet.config import ControlConfig
from fieldstation.fleet.worker_config import WorkerConfig
from fieldstation.stream.config import ServerConfig

_MACHINE: Any = Field(None, description="Machine that this role runs on; by default that of [site].")
_AFTER: Any = Field((), description="Further roles that must be ready before it starts.")


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Site(_Table):
    """`[site]`: the site as a whole."""

    name: str = Field(
        "site", pattern=r"^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$", description="Lower-case letters, digits and dashes."
    )
    machine: str | None = Field(None, description="Machine of the roles that name none, when the file has [machines].")
    dir: Path = Field(
        Path("state"), description="Where databases, stores and logs are kept; relative to the site file."
    )
    environment: dict[str, str] = Field(
        default_factory=dict,
        description="Variables that every role is started with. No secrets: the file is read by many.",
    )

    @field_validator("environment", mode="before")
    @classmethod
    def _texts(cls, value: object) -> object:
        return {k: str(v) if isinstance(v, int) else v for k, v in value.items()} if isinstance(value, dict) else value


class NatsRole(_Table):
    """`[nats]`: the message server. Without this table one is started where a pipeline, or a station, needs it."""

    machine: str | None = _MACHINE
    url: str | None = Field(None, description="Use this server instead of starting one: nats://host:4222.")
    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(4222, ge=1, le=65535, description="Port to listen on.")
    mqtt_port: int = Field(
        1883, ge=0, le=65535, description="Port of its MQTT 3.1.1 listener, for stations without a broker; 0: none."
    )
    sync_interval: str = Field(
        "always",
        pattern=r"^(always|\d+(ms|s|m))$",
        description="When messages are synced to disk: `always`, before each is confirmed; or every such as 10s.",
    )
    max_store: str = Field("16GB", pattern=r"^\d+[KMGT]?B?$", description="Most that the store may hold on disk.")
    token_file: Path | None = Field(
        None, description="File with a token that clients must present; needed beyond loopback."
    )
    tls_certificate: Path | None = Field(None, description="PEM certificate chain; turns TLS on.")
    tls_key: Path | None = Field(None, description="PEM key of the certificate.")
    tls_ca: Path | None = Field(None, description="PEM file of the authority that signed it, for those who connect.")
    insecure: bool = Field(False, description="Listen beyond loopback without a token.")


class ControlRole(ControlConfig):
    """`[fleet.control]`: the control server, with approvals and the panel."""

    machine: str | None = _MACHINE
    url: str | None = Field(
        None, pattern=r"^https?://[^/@]+$", description="Where other machines reach it, when not at machine and port."
    )


class WorkerRole(WorkerConfig):
    """`[fleet.worker.NAME]`: a worker, whose name is NAME unless it says another."""

    machine: str | None = _MACHINE
    after: tuple[str, ...] = _AFTER
    simulate: int | None = Field(None, ge=0, le=1000, description="Host so many simulated boards.")
    twin: bool = Field(False, description="They count what the bitstream really does; needs fpga-icestorm and gcc.")
    serials: tuple[str, ...] = Field((), description="Serials of the simulated boards.")


class StationRole(_Table):
    """`[station.NAME]`: a station, made with `fieldstation station new`; its settings are in its own folder."""

    machine: str | None = _MACHINE
    after: tuple[str, ...] = _AFTER
    dir: Path = Field(description="Folder of the station's project; relative to the site file.")


class StreamRole(ServerConfig):
    """`[stream.NAME]`: a frame server."""

    machine: str | None = _MACHINE
    after: tuple[str, ...] = _AFTER
    tls_ca: Path | None = Field(
        None, description="PEM file of the authority that signed `tls_certificate`: panel and bridges connect over TLS."
    )


class PipelineRole(_Table):
    """`[pipeline.NAME]`: a pipeline; its product is NAME."""

    machine: str | None = _MACHINE
    after: tuple[str, ...] = _AFTER
    manifest: Path = Field(description="Its krt.yaml; relative to the site file.")
    ack_wait_s: float = Field(30.0, gt=0, description="Seconds until unfinished work is handed out again.")
    run: dict[str, str] = Field(
        default_factory=dict, description="Process -> program, for processes without a file beside the manifest."
    )


class FlowWorkerRole(_Table):
    """`[flow.worker.NAME]`: takes approved commands from the Prefect work pool NAME; PREFECT_API_URL says where."""

    machine: str | None = _MACHINE
    after: tuple[str, ...] = _AFTER
    allow: tuple[str, ...] = Field((), description="Patterns of allowed commands (`ls *`); without any, all approved.")
    every_s: float = Field(5.0, gt=0, description="Seconds between two looks for work.")


class ProgramRole(_Table):
    """`[program.NAME]`: any other program, kept running beside the rest."""

    machine: str | None = _MACHINE
    command: tuple[str, ...] = Field(
        min_length=1, description="Its argument list; `fieldstation` is the one that runs the site."
    )
    dir: Path = Field(Path(), description="Folder it runs in; relative to the site file.")
    says_ready: bool = Field(False, description="It prints `ready ...` on standard output once it works.")
    after: tuple[str, ...] = Field((), description="Roles that must be ready before it starts.")
    stop_s: float = Field(8.0, gt=0, le=600, description="Seconds it gets to stop.")
