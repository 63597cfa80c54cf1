"""Settings of the fleet's servers. Reading them is `core.config.load`'s work, building from them is `compose`'s."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from fieldstation.core.files import state_folder
from fieldstation.core.security import Role

# Variables of today's installations, tried after our own FIELDSTATION_FLEET_CONTROL_*.
CONTROL_VARIABLES: Mapping[str, tuple[str, ...]] = {
    "database": ("ICEFARM_DATABASE", "USBIPICE_DATABASE"),
    "port": ("ICEFARM_CONTROL_PORT", "USBIPICE_CONTROL_PORT"),
}


DAY_S = 86_400.0


def default_database() -> str:
    """Return the SQLite address in the user's state folder (`$XDG_STATE_HOME/fieldstation/fleet.db`)."""
    return f"sqlite:///{state_folder() / 'fleet.db'}"


class ControlConfig(BaseModel):
    """`[fleet.control]`: the control server."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on. Any but loopback needs tokens.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    database: str = Field(
        default_factory=default_database,
        min_length=1,
        description="sqlite:///FILE, a postgresql:// address, or a libpq connection string (host=... dbname=...).",
    )
    insecure: bool = Field(False, description="Listen on any address although no token exists: everybody may act.")
    require_tokens: bool = Field(False, description="Ask for a token on loopback too (behind a reverse proxy).")
    allow_hosts: tuple[str, ...] = Field((), description="Names and addresses by which browsers may call this server.")
    tls_certificate: Path | None = Field(None, description="PEM file; serves HTTPS. Needs tls_key.")
    tls_key: Path | None = Field(None, description="PEM file with the private key of tls_certificate.")

    lease_s: float = Field(3600, gt=0, description="Length of a reservation, and of each extension, in seconds.")
    max_lease_s: dict[str, float] = Field(
        default_factory=dict,
        description="Role -> longest reservation, and extension, at a time, in seconds. Without an entry users have "
        "lease_s, operators and admins a day. JSON in the environment.",
    )
    ending_soon_s: float = Field(1200, ge=0, description="Warn the holder when fewer seconds than this are left.")
    ending_soon_every_s: float = Field(300, gt=0, description="Repeat that warning at this interval until extended.")
    grace_s: float = Field(
        60, gt=0, description="End a lease so many seconds after its holder's last socket closed, if it ever had one."
    )
    beat_s: float = Field(5, gt=0, description="How often workers must say that they live, in seconds.")
    silent_beats: int = Field(3, ge=1, description="A worker that missed so many beats is unreachable.")
    dead_after_s: float = Field(
        2, ge=0, description="A worker without line is dead once its port refused for so many seconds."
    )
    probe_s: float = Field(0.5, gt=0, description="How often the port of a worker without line is tried, in seconds.")
    return_s: float = Field(
        20, gt=0, description="A restarted worker must have found a reserved device again within so many seconds."
    )
    assign_wait_s: float = Field(
        5, gt=0, le=15, description="A worker must accept a reservation within so many seconds, or it fails whole."
    )
    command_s: float = Field(10, gt=0, description="Limit for a worker's answer to reboot and delete, in seconds.")
    tick_s: float = Field(0.5, gt=0, description="How often deadlines are looked at, in seconds.")
    keep_days: float = Field(
        365, gt=0, description="How long lines of the audit log, and reservations that ended, are kept, in days."
    )
    leader_lease_s: float = Field(
        3,
        gt=0,
        description="Two controls on one PostgreSQL: the other takes over after hearing nothing for so many seconds.",
    )
    sockets_per_client: int = Field(32, ge=1, description="Open sockets that one client name may have.")
    history_kept: int = Field(500, ge=1, le=100_000, description="Lines that are kept of each device's history.")
    queue_limit: int = Field(1000, ge=1, description="Requests that may stand in the queue at once.")

    @field_validator("max_lease_s", mode="before")
    @classmethod
    def _from_environment(cls, value: Any) -> Any:
        return json.loads(value) if isinstance(value, str) else value

    @field_validator("max_lease_s")
    @classmethod
    def _roles(cls, value: dict[str, float]) -> dict[str, float]:
        for role, longest in value.items():
            if role.upper() not in Role.__members__:
                raise ValueError(f"{role} is no role; those are {', '.join(r.name.lower() for r in Role)}")
            if not 0 < longest < float("inf"):
                raise ValueError(f"{longest} seconds for {role} is not a length")
        return value

    def max_lease(self, role: Role) -> float:
        """Return how long a reservation of somebody with `role` may last at a time, in seconds."""
        usual = self.lease_s if role < Role.OPERATOR else max(self.lease_s, DAY_S)
        return self.max_lease_s.get(role.name.lower(), usual)

    @model_validator(mode="after")
    def _pairs(self) -> ControlConfig:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together; one of them is missing")
        return self
