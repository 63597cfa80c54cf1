"""The settings of a station: today's config files load unchanged; what is new is optional.

Extend it by inheritance: `class Config(fieldstation.station.Config)` with one pydantic section per procedure, named in
the project's pyproject.toml under `[tool.fieldstation.station]` as `config = "module:Config"`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import pydantic
from pydantic import Field

from fieldstation.core.errors import first_problem
from fieldstation.core.files import write_file
from fieldstation.station.constants import LogLevel
from fieldstation.station.errors import StationConfigError
from fieldstation.station.place import current_place
from fieldstation.station.version import Version

MAX_CONFIG_BYTES = 1_000_000  # a config that is larger was never meant for a station
T = TypeVar("T", bound=pydantic.BaseModel)
Name = Annotated[str, Field(min_length=1, max_length=512)]


class Section(pydantic.BaseModel):
    """One section of the config."""

    # Only the whole config is ever validated: each section's own validator would cost every process its memory.
    model_config = pydantic.ConfigDict(defer_build=True)


class ForeignGeneralConfig(pydantic.BaseModel):
    """The two settings every version has; whatever else there is, is kept."""

    model_config = pydantic.ConfigDict(extra="allow", defer_build=True)

    config_revision: int = Field(ge=-1, description="Grows with every config that is sent to the station.")
    software_version: Version = Field(description="The version of the software that this config is for.")


class ForeignConfig(pydantic.BaseModel):
    """A config for any version of the software: only the two settings every version has are looked at."""

    model_config = pydantic.ConfigDict(extra="allow", defer_build=True)

    general: ForeignGeneralConfig = Field(description="The two settings every version has.")

    @staticmethod
    def load_from_string(c: str) -> ForeignConfig:
        """Parse JSON; StationConfigError names the field that is wrong."""
        return _parse(ForeignConfig, c, "the received config")

    def dump(self) -> None:
        """Write it to `<root>/<its version>/config/config.json` in one step."""
        version = self.general.software_version.as_identifier()
        _dump(self, current_place().root_dir / version / "config" / "config.json")


class GeneralConfig(Section):
    """Which station this is and which config it runs."""

    config_revision: int = Field(ge=-1, description="Grows with every config that is sent to the station.")
    software_version: Version = Field(description="The version of the software that this config is for.")
    system_identifier: Name = Field(description="The station's name at the server.")


class LoggingVerbosityConfig(Section):
    """The least important level each channel shows; null shows nothing."""

    file_archive: LogLevel | None = Field(description="For the log files.")
    console_prints: LogLevel | None = Field(description="For standard output.")
    message_sending: LogLevel | None = Field(description="For the log messages that are sent to the server.")


class UpdaterConfig(pydantic.BaseModel):
    """Where other versions of the software come from."""

    model_config = pydantic.ConfigDict(populate_by_name=True, defer_build=True)

    repository: str = Field(
        # Anchored, and only what a host name path may hold: these strings become parts of addresses.
        pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]*(/[a-zA-Z0-9][a-zA-Z0-9._-]*)+$",
        max_length=256,
        description="`organisation/repository` at the provider.",
    )
    provider: Literal["github", "gitlab", "http", "folder"] = Field(
        description="Where releases are: a GitHub or GitLab host, a plain HTTP mirror, or a folder (a USB stick)."
    )
    provider_host: str = Field(
        min_length=3,
        max_length=512,
        pattern=r"^[a-zA-Z0-9./_:\[\]-]+$",
        description="The host name; for `http` the address, for `folder` the path.",
    )
    access_token: str | None = Field(default=None, min_length=3, max_length=256, description="For private sources.")
    source_conflict_strategy: Literal["overwrite", "reuse"] = Field(
        default="reuse",
        # The template of today's stations spells it this way.
        validation_alias=pydantic.AliasChoices("source_conflict_strategy", "source_conflict_behaviour"),
        description="What to do when the folder of the new version is already there.",
    )


class MQTTBrokerConfig(Section):
    """How to reach an MQTT broker."""

    host: Name = Field(description="Host name or address of the broker.")
    port: int = Field(ge=1, le=65535, description="Port of the broker.")
    client_id: Name = Field(description="The client id; two clients with one id throw each other out.")
    username: Name | None = Field(default=None, description="User name, where the broker asks for one.")
    password: Name | None = Field(default=None, description="Password, where the broker asks for one.")
    tls: bool | None = Field(default=None, description="Encrypt; null means when a CA is set or the host needs it.")
    ca_file: str | None = Field(default=None, description="The CA that signed the broker's certificate.")
    certificate_file: str | None = Field(default=None, description="This station's certificate.")
    key_file: str | None = Field(default=None, description="The key of this station's certificate.")


class NATSConfig(Section):
    """How to reach a NATS server with JetStream."""

    servers: list[Name] = Field(min_length=1, description="Addresses such as nats://host:4222; tls:// encrypts.")
    stream: str = Field(default="STATION", pattern=r"^[A-Za-z0-9_-]+$", description="The stream's name.")
    subject_prefix: str = Field(
        default="station", pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$", description="First tokens of all subjects."
    )
    username: str | None = Field(default=None, description="User name, where the server asks for one.")
    password: str | None = Field(default=None, description="Password, where the server asks for one.")
    token: str | None = Field(default=None, description="Token, where the server asks for one.")
    credentials_file: str | None = Field(default=None, description="A .creds file, where the server asks for one.")
    ca_file: str | None = Field(default=None, description="The CA that signed the server's certificate.")
    duplicate_window_s: int = Field(default=120, ge=1, le=86400, description="How long the stream remembers ids.")


class BackendConfig(Section):
    """One way to a server."""

    provider: str = Field(
        pattern=r"^[a-z][a-z0-9_]*$",
        description="The uplink's entry point: tenta, thingsboard, nats, aws_iot or one of your own.",
    )
    mqtt_connection: MQTTBrokerConfig | None = Field(default=None, description="For uplinks over MQTT.")
    nats_connection: NATSConfig | None = Field(default=None, description="For the uplink `nats`.")
    topic_prefix: str = Field(default="dt/station", min_length=1, max_length=128, description="For `aws_iot`.")
    max_parallel_messages: int = Field(default=50, ge=1, le=10000, description="Sent and not yet acknowledged.")
    max_drain_time: int = Field(default=600, ge=0, le=7200, description="Seconds to send what is queued at a stop.")

    @pydantic.model_validator(mode="after")
    def _connection_fits(self) -> Self:
        if self.provider == "nats" and self.nats_connection is None:
            raise ValueError("provider 'nats' needs nats_connection")
        if self.provider in ("tenta", "thingsboard", "aws_iot") and self.mqtt_connection is None:
            raise ValueError(f"provider {self.provider!r} needs mqtt_connection")
        mqtt = self.mqtt_connection
        if self.provider in ("tenta", "thingsboard") and mqtt and (mqtt.username is None or mqtt.password is None):
            raise ValueError(f"provider {self.provider!r} needs mqtt_connection.username and .password")
        return self


class SupervisionConfig(Section):
    """When a procedure is started again."""

    watchdog_seconds: float | None = Field(
        default=None, gt=0, description="Restart a procedure that gave no sign of life for so long; null never does."
    )
    memory_limit_mb: float | None = Field(default=None, gt=0, description="Restart a procedure that grew beyond this.")
    restarts_per_hour: int = Field(default=60, ge=1, description="Beyond this a procedure rests for ten minutes.")


class RetentionConfig(Section):
    """What of the archive may go. Messages that are still owed to an uplink never do."""

    max_age_days: float | None = Field(
        default=None, gt=0, description="Drop delivered messages that are older, and the files of such days."
    )
    max_size_mb: float | None = Field(
        default=None, gt=0, description="Drop the oldest days and delivered messages above this size, store and files."
    )
    log_days: int = Field(default=90, ge=1, description="Remove log files that are older.")


class HealthConfig(Section):
    """How a new config or version proves itself, and where the station tells how it is."""

    port: int = Field(default=0, ge=0, le=65535, description="Loopback port of /health and /metrics; 0 takes any.")
    config_window_seconds: float = Field(
        default=60,
        gt=0,
        le=86400,
        description="A new config is rolled back when the broker is not reached within this time.",
    )
    version_window_seconds: float = Field(default=300, gt=0, le=86400, description="The same for a new version.")
    settle_seconds: float = Field(default=5, ge=0, le=3600, description="No procedure may die for so long.")


class DummyProcedureConfig(Section):
    """The random walk."""

    seconds_between_datapoints: int = Field(ge=1, le=7200, description="One datapoint each so many seconds.")


class SystemChecksConfig(Section):
    """The checks of the computer itself."""

    seconds_between_checks: int = Field(ge=1, le=7200, description="One check each so many seconds.")


class Config(pydantic.BaseModel):
    """The settings of this version of the software."""

    model_config = pydantic.ConfigDict(extra="forbid", defer_build=True)

    general: GeneralConfig = Field(description="Which station this is and which config it runs.")
    logging_verbosity: LoggingVerbosityConfig = Field(description="How much each channel shows.")
    updater: UpdaterConfig | None = Field(default=None, description="null: the version never changes.")
    backend: BackendConfig | None = Field(default=None, description="null: store only.")
    uplinks: dict[str, BackendConfig] = Field(default={}, description="More uplinks, each with a cursor of its own.")
    dummy_procedure: DummyProcedureConfig | None = Field(default=None, description="null: no random walk.")
    system_checks: SystemChecksConfig | None = Field(default=None, description="null: no checks.")
    supervision: dict[str, SupervisionConfig] = Field(default={}, description="By procedure name; `*` for all.")
    retention: RetentionConfig = Field(default_factory=RetentionConfig, description="What of the archive may go.")
    health: HealthConfig = Field(default_factory=HealthConfig, description="Trials, /health and /metrics.")

    def dump(self) -> None:
        """Write it to `<root>/<version>/config/config.json` in one step; the running version's own goes in place."""
        place = current_place()
        version = self.general.software_version.as_identifier()
        own = version == place.version
        _dump(self, place.config_file if own else place.root_dir / version / "config" / "config.json")

    @classmethod
    def load(cls) -> Self:
        """Read `config/config.json` of the station; a StationConfigError names the field that is wrong."""
        return cls.load_file(current_place().config_file)

    @classmethod
    def load_file(cls, path: Path) -> Self:
        """Read a config file."""
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise StationConfigError(f"The config {path} cannot be read: {error}.") from error
        return _parse(cls, text, str(path))

    @classmethod
    def load_from_string(cls, c: str) -> Self:
        """Parse JSON; a StationConfigError names the field that is wrong."""
        return _parse(cls, c, "the config")

    @classmethod
    def load_template(cls) -> Self:
        """Read `config/config.template.json` of the project."""
        return cls.load_file(current_place().project_dir / "config" / "config.template.json")

    def to_foreign_config(self) -> ForeignConfig:
        """Return the same settings as a `ForeignConfig`."""
        return ForeignConfig.load_from_string(self.model_dump_json())

    def all_uplinks(self) -> dict[str, BackendConfig]:
        """Return every uplink by the name under which its cursor is kept; the documented one is `backend`."""
        return ({"backend": self.backend} if self.backend is not None else {}) | self.uplinks


def _parse(cls: type[T], text: str, source: str) -> T:
    if len(text) > MAX_CONFIG_BYTES:
        raise StationConfigError(f"{source} is larger than {MAX_CONFIG_BYTES} bytes and was not read.")
    try:
        return cls.model_validate_json(text)
    except pydantic.ValidationError as error:
        key, problem = first_problem(error)
        if not key:
            raise StationConfigError(f"{source} is not usable: {problem}.") from error
        raise StationConfigError(key=repr(key), source=source, problem=problem) from error


def _dump(config: pydantic.BaseModel, path: Path) -> None:
    write_file(path, json.dumps(json.loads(config.model_dump_json()), indent=4) + "\n", mode=0o600)


def as_data(config: pydantic.BaseModel) -> Any:
    """Return the config as plain JSON data."""
    return json.loads(config.model_dump_json())
