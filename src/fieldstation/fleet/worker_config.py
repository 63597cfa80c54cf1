"""Settings of a worker: our TOML, the documented INI file, and the documented environment variables."""

from __future__ import annotations

import configparser
import os
import re
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from fieldstation.core.config import load, section
from fieldstation.core.errors import ConfigError
from fieldstation.core.files import state_folder
from fieldstation.core.security import TOKEN_VARIABLE

TABLE = "fleet.worker"

# Field -> what the documented variables and the keys of the documented INI file are called, without their prefix.
_DOCUMENTED = {
    "name": "WORKER_NAME",
    "control": "CONTROL_SERVER",
    "url": "WORKER_URL",
    "port": "SERVER_PORT",
    "virtual_ip": "VIRTUAL_IP",
    "virtual_port": "VIRTUAL_PORT",
    "firmware_default": "DEFAULT",
    "firmware_pulsecount": "PULSE_COUNT",
    "firmware_variance": "VARIANCE",
    "log_file": "WORKER_LOGS",
}
PREFIXES = ("ICEFARM_", "USBIPICE_")
WORKER_VARIABLES = {field: tuple(prefix + name for prefix in PREFIXES) for field, name in _DOCUMENTED.items()}
WORKER_VARIABLES["token"] = (TOKEN_VARIABLE,)  # as for every other client of control
FILE_VARIABLES = tuple(prefix + "WORKER_CONFIG" for prefix in PREFIXES)


class HubPort(BaseModel):
    """Where a board is plugged in, as uhubctl prints it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    location: str = Field(min_length=1, description="The hub, such as 1-4.")
    port: str = Field(min_length=1, description="The number of the port on the hub.")

    @field_validator("port", mode="before")
    @classmethod
    def _text(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class CareConfig(BaseModel):
    """`[fleet.worker.care]`: health checks of idle devices, and how far the recovery ladder goes for broken ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    check_s: float = Field(
        default=600, ge=0, description="Look at each idle device at this interval, in seconds; 0: never."
    )
    retries: int = Field(
        default=2, ge=0, description="How often a broken device is only looked at again, within window_s."
    )
    reflashes: int = Field(default=3, ge=0, description="How often it is flashed again, within window_s.")
    power_cycles: int = Field(default=2, ge=0, description="How often its power is cut, within window_s.")
    window_s: float = Field(default=21_600, gt=0, description="Seconds that these budgets are for.")
    power_cycle: tuple[str, ...] = Field(
        default=(),
        description="Command that cuts a board's power for a moment; {serial}, {location}, {port} are filled in.",
    )
    power_cycle_s: float = Field(default=30, gt=0, description="Seconds that this command may take.")
    back_s: float = Field(default=15, gt=0, description="Seconds that a board has to come back after it.")
    places: dict[str, HubPort] = Field(
        default_factory=dict, description="Hub and port by serial, for boards that do not tell theirs."
    )

    @field_validator("power_cycle")
    @classmethod
    def _known_placeholders(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        found = {name for word in value for name in re.findall(r"\{(\w+)\}", word)}
        if unknown := sorted(found - {"serial", "location", "port"}):
            raise ValueError(f"there is no {{{unknown[0]}}}; it fills in {{serial}}, {{location}} and {{port}}")
        return value


class WorkerConfig(BaseModel):
    """`[fleet.worker]`: one worker."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        default_factory=socket.gethostname, min_length=1, max_length=200, description="Its name, unique in the fleet."
    )
    control: tuple[str, ...] = Field(default=(), description="Addresses of control servers; without, it stands alone.")
    host: str = Field(default="127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(default=8081, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    url: str | None = Field(default=None, pattern=r"^https?://[^/@]+$", description="Where clients reach it.")
    driver: tuple[str, ...] = Field(default=("pico2_ice",), description="Names of drivers (`fieldstation plugins`).")
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict, description="A table of settings per driver.")
    labels: dict[str, str] = Field(default_factory=dict, description="Labels that every device here has.")
    dir: Path | None = Field(default=None, description="Where it keeps leases and undelivered results.")
    token: SecretStr | None = Field(
        default=None, description="Token for control (role operator); from the environment."
    )
    token_file: Path | None = Field(default=None, description="File that holds the token for control.")
    tokens: Path | None = Field(default=None, description="Token file for people who use this worker's own endpoints.")
    insecure: bool = Field(default=False, description="Listen on any address although no token file exists.")
    allow_hosts: tuple[str, ...] = Field(default=(), description="Names by which browsers may call this server.")
    tls_certificate: Path | None = Field(default=None, description="PEM file; serves HTTPS. Needs tls_key.")
    tls_key: Path | None = Field(default=None, description="PEM file with the private key of tls_certificate.")
    firmware_default: Path | None = Field(default=None, description="UF2 file that an unreserved board runs.")
    firmware_pulsecount: Path | None = Field(default=None, description="UF2 file of the kind pulsecount.")
    firmware_variance: Path | None = Field(default=None, description="UF2 file of the kind variance.")
    virtual_ip: str | None = Field(default=None, description="Older way to say `url`: the address.")
    virtual_port: int | None = Field(default=None, ge=1, le=65535, description="Older way to say `url`: the port.")
    log_file: Path | None = Field(default=None, description="Also write the log to this file.")
    care: CareConfig = Field(default=CareConfig(), description="Health checks and recovery of broken devices.")

    @field_validator("control", "driver", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip().rstrip("/") for part in value.split(",") if part.strip())
        return value

    @field_validator("url", mode="before")
    @classmethod
    def _bare(cls, value: object) -> object:
        return value.rstrip("/") if isinstance(value, str) else value

    @property
    def folder(self) -> Path:
        """Where the worker's file is kept: `dir`, or the user's state folder."""
        return self.dir or state_folder() / "workers" / self.name

    def advertised(self, port: int, scheme: str) -> str:
        """Return where clients reach it, given the port that it listens on."""
        if self.url is not None:
            return self.url
        everywhere = self.host in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
        host = self.virtual_ip or (_own_address() if everywhere else self.host)
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.virtual_port or port}"

    def control_token(self) -> str | None:
        """Return the token for control, from the environment or its file."""
        if self.token is not None:
            return self.token.get_secret_value()
        if self.token_file is None:
            return None
        try:
            return self.token_file.read_text().strip()
        except OSError as error:
            raise ConfigError(key="token_file", source="the configuration", problem=error.strerror) from error


def _own_address() -> str:
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return "127.0.0.1"


def worker_config(
    *, file: Path | None = None, overrides: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> WorkerConfig:
    """Return the settings: the file, over it the environment (documented variables too), over it `overrides`."""
    environ = os.environ if environ is None else environ
    named = next((environ[name] for name in FILE_VARIABLES if environ.get(name)), None)
    file = file or (Path(named) if named else None)
    values = _read(file) if file is not None else {}
    return load(
        WorkerConfig, table=TABLE, values=values, environ=environ, aliases=WORKER_VARIABLES, overrides=overrides
    )


def _read(path: Path) -> dict[str, Any]:
    """Read our TOML, or the documented file with [Connection] and [Firmware], which is INI whatever it is called."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration file {path} cannot be read: {error}.") from error
    try:
        data: Mapping[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        data = _ini(text)
        if not data:
            raise ConfigError(f"The configuration file {path} is not valid TOML: {error}.") from error
    documented = {**data.get("Connection", {}), **data.get("Firmware", {})}
    if not documented:
        return section(data, TABLE)
    fields = {prefix + name: field for field, name in _DOCUMENTED.items() for prefix in PREFIXES}
    for key in documented:
        if key not in fields and not key.endswith("_CONTROL_PORT"):
            raise ConfigError(key=repr(key), source=path, problem="there is no such setting")
    return {fields[key]: value for key, value in documented.items() if key in fields}


def _ini(text: str) -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # documented way to keep upper case
    try:
        parser.read_string(text)
    except configparser.Error:
        return {}
    return {name: {key: value.strip("\"'") for key, value in parser[name].items()} for name in parser.sections()}
