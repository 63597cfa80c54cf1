"""Configuration: the documented JSON files with their fields, and what this server adds. Data only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from fieldstation.core import config as core_config
from fieldstation.core.errors import ConfigError, first_problem

ProductName = Literal["img8", "img16", "ph256", "ph1024"]


class Strict(BaseModel):
    """A table in which an unknown key is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Switch(Strict):
    """An acquisition method that is on or off."""

    enabled: bool = Field(default=False, description="Whether this way of acquiring frames is used.")


class IngestConfig(Strict):
    """The ingest sockets to which the acquisition software connects."""

    enabled: bool = Field(default=False, description="Whether to listen for the acquisition software.")
    data_products: list[ProductName] = Field(
        default=["img8", "img16", "ph256", "ph1024"], description="One socket for each of these products."
    )
    socket_path_template: str = Field(
        default="/tmp/hashpipe_grpc.dp_{dp_name}.sock",  # noqa: S108 - the documented place, where the writer looks for it
        description="Path of a product's socket; {dp_name} becomes the product.",
    )
    read_timeout: float = Field(
        default=600, gt=0, description="Seconds without data after which a connection is closed."
    )
    socket_mode: int = Field(default=0o660, description="Permission bits of the sockets.")

    @field_validator("socket_path_template")
    @classmethod
    def _has_place(cls, value: str) -> str:
        if "{dp_name}" not in value:
            raise ValueError("it must hold {dp_name}")
        return value


class AcquisitionMethods(Strict):
    """Which sources feed the stream; several may be on."""

    filesystem_poll: Switch = Field(default=Switch(enabled=True), description="Follow PFF files in data_dir.")
    filesystem_pipe: Switch = Field(default=Switch(), description="Also listen to the status FIFO in the run folder.")
    uds: IngestConfig = Field(default=IngestConfig(), description="Listen on ingest sockets.")


class SourceData(Strict):
    """Archived files that a simulation replays."""

    real_module_id: int | None = Field(
        default=None, description="The module in the archived files; for the reader only."
    )
    movie_pff_path: str | None = Field(
        default=None, description="PFF file with movie frames; absent: generated frames."
    )
    ph_pff_path: str | None = Field(
        default=None, description="PFF file with pulse-height frames; absent: generated frames."
    )


class SimulationFiles(Strict):
    """Where a simulation writes its run."""

    sim_data_dir: str = Field(default="", description="Data directory of the simulation; empty: a temporary one.")
    sim_run_dir_template: str = Field(default="module_{module_id}/obs_SIMULATE", description="Run folder of a module.")
    daq_active_file: str = Field(default="module_{module_id}.daq-active", description="File that marks an active run.")


class SimulationConfig(Strict):
    """What a simulated acquisition produces."""

    simulation_mode: Literal["filesystem_poll", "filesystem_pipe", "filesystem", "uds", "rpc"] = Field(
        default="filesystem_poll", description="By which way simulated frames reach the server."
    )
    sim_module_ids: list[Annotated[int, Field(ge=0, le=65535)]] = Field(
        default=[224], min_length=1, description="The modules that are pretended."
    )
    movie_type: ProductName = Field(default="img16", description="The movie product.")
    ph_type: ProductName = Field(default="ph256", description="The pulse-height product.")
    update_interval_seconds: float = Field(default=0.1, gt=0, description="Pause between simulated frames.")
    source_data: SourceData = Field(
        default=SourceData(), description="Archived files to replay instead of generated frames."
    )
    files: dict[str, Any] = Field(default={}, description="Accepted for compatibility; not used.")
    filesystem_cfg: SimulationFiles = Field(default=SimulationFiles(), description="Places of the simulated run.")
    strategies: dict[str, dict[str, Any]] = Field(
        default={}, description="Per mode: frames_per_pff (frames in a file, default 100), frame_limit (-1: no end)."
    )


class ServerConfig(Strict):
    """The server: documented fields of daq_data_server_config.json first, then ours."""

    init_from_default: bool = Field(default=False, description="Run an init at start from the next file.")
    default_hp_io_config_file: str = Field(
        default="hp_io_config_simulate.json", description="The hp_io configuration that init_from_default uses."
    )
    unix_domain_socket: str | None = Field(
        default=None, description="Second listener, unix:///path; open to local users of the file without a token."
    )
    max_concurrent_rpcs: int = Field(default=100, ge=1, description="How many StreamImages clients at once.")
    max_read_queue_size: int = Field(
        default=50, ge=1, description="Accepted for compatibility; newest-wins needs no queue."
    )
    min_hp_io_update_interval_seconds: float = Field(
        default=0.001, gt=0, description="Least interval an InitHpIo may ask for."
    )
    max_client_update_interval_seconds: float = Field(
        default=60, gt=0, description="Accepted for compatibility; not enforced."
    )
    max_reader_enqueue_timeouts: int = Field(default=2, description="Accepted for compatibility; not used.")
    max_reader_dequeue_timeouts: int = Field(default=3, description="Accepted for compatibility; not used.")
    reader_timeout: float = Field(default=5, description="Accepted for compatibility; not used.")
    shutdown_grace_period: float = Field(default=5, ge=0, description="Seconds that running calls get at shutdown.")
    hp_io_stop_timeout: float = Field(
        default=5.0, description="Accepted for compatibility; a source is stopped within 3 s."
    )
    valid_data_products: list[ProductName] = Field(
        default=["img8", "img16", "ph256", "ph1024"],
        description="Accepted for compatibility; all four are always known.",
    )
    read_status_pipe_name: str = Field(default="read_status_2", description="Name of the status FIFO in a run folder.")
    acquisition_methods: AcquisitionMethods = Field(
        default=AcquisitionMethods(), description="Which sources feed the stream."
    )
    simulate_daq_cfg: SimulationConfig = Field(default=SimulationConfig(), description="What simulate_daq produces.")

    host: str = Field(default="127.0.0.1", description="Address to listen on; others than loopback need tokens.")
    port: int = Field(default=50051, ge=0, le=65535, description="TCP port; 0 takes a free one.")
    name: str = Field(default="", description="Server name in each response; empty: the host name.")
    token_file: Path | None = Field(default=None, description="File of hashed tokens; with it every call needs one.")
    insecure: bool = Field(default=False, description="Listen beyond loopback without tokens.")
    tls_certificate: Path | None = Field(default=None, description="PEM certificate chain; turns TLS on.")
    tls_key: Path | None = Field(default=None, description="PEM key of the certificate.")
    tls_client_ca: Path | None = Field(default=None, description="Only clients with a certificate of this CA get in.")
    metrics_port: int | None = Field(
        default=None, ge=0, le=65535, description="Loopback port for /metrics; absent: none."
    )
    data_dir: str | None = Field(
        default=None, description="Follow this data directory from the start, without an InitHpIo."
    )
    simulate: bool = Field(default=False, description="Start with simulated frames, without an InitHpIo.")
    update_interval_seconds: float = Field(default=0.1, gt=0, description="hp_io interval for data_dir and simulate.")
    daq_process: str = Field(
        default="hashpipe", description="Process name that marks an active run; empty: never asked."
    )
    daq_active_file: str | None = Field(
        default=None, description="File that marks an active run, instead of a process."
    )
    replay_dir: str | None = Field(default=None, description="Serve this recorded run instead of a live one.")
    replay_speed: float = Field(
        default=1.0, ge=0, description="Pace of a replay: 1 is real time, 0 as fast as it goes."
    )
    replay_loop: bool = Field(default=False, description="Begin a replay again at its end.")
    every_mode_buffer: int = Field(
        default=4096, ge=1, le=1_000_000, description="Frames kept for a slow every-frame client."
    )


class HpIoConfig(Strict):
    """hp_io_config.json, as documented."""

    data_dir: str = Field(default="", description="The directory that Hashpipe writes to; holds module_X/ directories.")
    update_interval_seconds: float = Field(default=0.1, description="Seconds between two looks at the run directory.")
    force: bool = Field(default=False, description="Reconfigure even if clients are active; their streams end.")
    simulate_daq: bool = Field(default=False, description="Stream simulated data instead.")
    module_ids: list[int] = Field(default=[], description="Modules to broadcast; empty: all.")
    comments: str = Field(default="", description="For the reader only.")


SIMULATED_HP_IO = HpIoConfig(
    data_dir="simulated_data_dir", update_interval_seconds=0.1, force=True, simulate_daq=True, module_ids=[]
)


def read_json(path: Path) -> Any:
    """Read a JSON file; every failure is a ConfigError that names the file."""
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"The configuration file {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(f"The configuration file {path} is not valid JSON: {error}.") from error


def load_server(file: Path | None = None, overrides: dict[str, Any] | None = None, **kwargs: Any) -> ServerConfig:
    """Read the server's configuration from JSON (the documented file) or TOML ([stream]), environment, overrides."""
    if file is not None and file.suffix == ".json":
        values = read_json(file)
        if not isinstance(values, dict):
            raise ConfigError(f"The configuration file {file} holds no JSON object.")
        core_config.refuse_unknown(ServerConfig, values, str(file))
        return core_config.load(ServerConfig, table="stream", values=values, overrides=overrides, **kwargs)
    if file is not None:
        return core_config.load(ServerConfig, file=file, table="stream", overrides=overrides, **kwargs)
    return core_config.load(ServerConfig, table="stream", overrides=overrides, **kwargs)


def load_hp_io(file: Path) -> HpIoConfig:
    """Read hp_io_config.json; ConfigError names the field that is wrong."""
    values = read_json(file)
    if not isinstance(values, dict):
        raise ConfigError(f"The configuration file {file} holds no JSON object.")
    return parse_hp_io(values, str(file))


def parse_hp_io(values: dict[str, Any], source: str = "hp_io_config") -> HpIoConfig:
    """Check a dictionary with the fields of hp_io_config.json."""
    core_config.refuse_unknown(HpIoConfig, values, source)
    try:
        return HpIoConfig(**values)
    except ValueError as error:
        key, problem = first_problem(error)
        raise ConfigError(key=repr(key), source=source, problem=problem) from error
