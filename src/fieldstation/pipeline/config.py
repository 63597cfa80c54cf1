"""The configuration of one node: the documented keys, and ours beside them under `runner` and `nats`.

Lenient on unknown keys, because the files are written by other managers too; strict on what is here.
"""

from __future__ import annotations

import json
import os
import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

MAX_INFLATED_BYTES = 64 * 1024 * 1024

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|h|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_NANOSECONDS_FROM = 1e6  # as hours this would be a century; the Go SDK reads a bare integer as nanoseconds


def seconds(value: object) -> object:
    """Read a duration: a number of seconds, or Go's form such as `1h30m`."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _SECONDS[unit] for number, unit in parts)
    return text


def ack_wait(value: object) -> object:
    """Read `ack_wait_time` as either SDK means it: whole hours (Python), or a Go duration; 0 is the server's 30 s."""
    if isinstance(value, str) and re.fullmatch(r"\d+", value.strip()):
        value = int(value)
    if isinstance(value, int | float):
        if value == 0:
            return 30.0
        return value / 1e9 if value >= _NANOSECONDS_FROM else value * 3600.0
    return seconds(value)


def items(value: object) -> object:
    """Read a list, also from comma-separated text."""
    if isinstance(value, str):
        return [part for part in (piece.strip() for piece in value.replace(" ", "").split(",")) if part]
    return [] if value is None else value


def pairs(value: object) -> object:
    """Read a map of text to text, also from JSON text; numbers and booleans become the text YAML writes for them."""
    if isinstance(value, str):
        value = json.loads(value) if value.strip() else {}
    if value is None:
        return {}
    if isinstance(value, dict):
        return {str(key): item if isinstance(item, str) else json.dumps(item) for key, item in value.items()}
    return value


Seconds = Annotated[float, BeforeValidator(seconds)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, coerce_numbers_to_str=True, hide_input_in_errors=True)


class Metadata(_Section):
    """Who the node is."""

    product_id: str = Field(description="Product the node belongs to.")
    version_tag: str = Field(description="Version of the product, `v1.2.3`.")
    workflow_name: str = Field(description="Workflow the process is part of.")
    process_name: str = Field(description="Name of the process; the sender's name in its messages.")
    workflow_type: str = Field("", description="`data`, `training`, `feedback` or `serving`; informative.")
    process_type: str = Field("", description="`trigger`, `task` or `exit`; the runner that is started decides.")
    base_path: str = Field("", description="Base of the node's own paths (`sdk.path_utils`).")


class Nats(_Section):
    """Where messages come from and go to."""

    url: str = Field(description="Server address, or several separated by commas: `host:4222`, `tls://host:4222`.")
    stream: str = Field("", description="Stream of the workflow; by default composed from the metadata.")
    output: str = Field("", description="Own output subject; by default stream and process name.")
    inputs: Annotated[list[str], BeforeValidator(items)] = Field(
        default_factory=list, description="Input subjects: a list, or comma-separated text."
    )
    object_store: str = Field("", description="Bucket of the ephemeral storage; none switches it off.")
    user: str = Field("", description="User name, when the server asks for one.")
    password: str = Field("", description="Password of the user.")
    token: str = Field("", description="Token, for servers that authenticate by token.")
    credentials: str = Field("", description="Path of a `.creds` file.")
    ca: str = Field("", description="CA certificate file; with it, or a `tls://` address, the connection is encrypted.")
    certificate: str = Field("", description="Our certificate file, for servers that check clients.")
    key: str = Field("", description="Private key file of our certificate.")
    start_timeout: Seconds = Field(15.0, description="Seconds to wait at start for a server that is not there yet.")


class BucketName(_Section):
    """The key-value bucket of a scope."""

    bucket: str = Field("", description="Name of the bucket; by default composed from the metadata.")


class ProcessBucket(BucketName):
    """The bucket of the process scope, and what is written into it at start."""

    config: Annotated[dict[str, str], BeforeValidator(pairs)] = Field(
        default_factory=dict, description="Values the process starts with."
    )


class CentralizedConfiguration(_Section):
    """Shared configuration, from the widest scope to the narrowest."""

    global_: BucketName = Field(BucketName(bucket=""), alias="global", description="Bucket of the whole product.")
    product: BucketName = Field(BucketName(bucket=""), description="Bucket of this version.")
    workflow: BucketName = Field(BucketName(bucket=""), description="Bucket of the workflow.")
    process: ProcessBucket = Field(ProcessBucket(bucket=""), description="Bucket of the process.")


class Minio(_Section):
    """Persistent storage on S3; without an endpoint a local folder takes its place."""

    endpoint: str = Field("", description="`host:port` of the S3 server; empty uses `folder`.")
    client_user: str = Field("", description="Access key, or the user at the identity server.")
    client_password: str = Field("", description="Secret key, or the password at the identity server.")
    ssl: bool = Field(False, description="Reach the endpoint with https.")
    bucket: str = Field("", description="Bucket of the product; by default the product's name.")
    internal_folder: str = Field(".kai", description="Reserved key prefix, hidden from lists.")
    folder: str = Field("", description="Folder that stores objects when no endpoint is set.")


class ModelRegistryConfig(_Section):
    """Where models are kept."""

    folder_name: str = Field(".models", description="Folder below the reserved prefix.")


class Auth(_Section):
    """Identity server that turns user and password into storage keys; without an endpoint they are used as keys."""

    endpoint: str = Field("", description="Address of the identity server.")
    client: str = Field("", description="Client name at the identity server.")
    client_secret: str = Field("", description="Secret of the client.")
    realm: str = Field("", description="Realm of the users.")


class PredictionsConfig(_Section):
    """Prediction store on Redis; without an endpoint a SQLite file takes its place."""

    endpoint: str = Field("", description="`host:port` of Redis; empty uses `file`.")
    username: str = Field("", description="Redis user.")
    password: str = Field("", description="Password of the user.")
    index: str = Field("predictionsIdx", description="Search index over the predictions.")
    file: str = Field("", description="SQLite file used when no endpoint is set.")


class MeasurementsConfig(_Section):
    """Where OpenTelemetry measurements are sent."""

    endpoint: str = Field("", description="OTLP (gRPC) endpoint `host:port`; empty sends nothing.")
    insecure: bool = Field(True, description="Send without TLS.")
    timeout: Seconds = Field(5.0, description="Seconds an export may take.")
    metrics_interval: Seconds = Field(10.0, description="Seconds between exports.")


class TracesConfig(_Section):
    """Where OpenTelemetry traces are sent. Ours; the published SDKs have none, and ignore the header they travel in."""

    endpoint: str = Field("", description="OTLP (gRPC) endpoint `host:port`; empty makes no traces.")
    insecure: bool = Field(True, description="Send without TLS.")
    timeout: Seconds = Field(5.0, description="Seconds an export may take.")
    share: float = Field(1.0, ge=0, le=1, description="Share of the requests begun here that are traced, 0 to 1.")


class Subscriber(_Section):
    """How messages are taken, worked on and settled."""

    ack_wait_time: Annotated[float, BeforeValidator(ack_wait)] = Field(
        30.0,
        description="Seconds until an unfinished message is handed out again; long work renews it. As documented, a "
        "bare integer counts hours, a text such as `22h` is a Go duration. Replicas shared with upstream need 22.",
    )
    concurrency: int = Field(
        1, ge=1, le=1024, description="Messages of one input that are handled at the same time. One keeps their order."
    )
    threads: int = Field(0, ge=0, le=256, description="Threads for sync handlers; 0 means one per concurrent message.")
    handler_timeout: Seconds = Field(79200.0, gt=0, description="Seconds one handler call may take.")
    max_deliveries: int = Field(
        20, ge=2, description="Deliveries after which a message that kills its process is a dead letter."
    )
    hand_back_after: Seconds = Field(
        5.0, gt=0, description="Seconds a message may wait behind busy handlers before another replica gets it."
    )
    max_inflated_bytes: int = Field(
        MAX_INFLATED_BYTES, ge=1024, description="Largest size a compressed message may unpack to."
    )
    drain_timeout: Seconds = Field(6.0, ge=0, description="Seconds to finish handlers at work when told to stop.")


class Retry(_Section):
    """What happens after a handler failed."""

    attempts: int = Field(3, ge=1, le=100, description="Tries of one message before it becomes a dead letter.")
    initial: Seconds = Field(0.2, ge=0, description="Seconds before the second try; doubled for each further one.")
    ceiling: Seconds = Field(30.0, ge=0, description="Longest wait between tries in seconds.")
    dead_letters: bool = Field(True, description="Keep messages that failed every try, to be shown and replayed.")
    forward_errors: bool = Field(
        False, description="Pass ERROR messages on to the output without calling the handler (short circuit)."
    )


class LoggerConfig(_Section):
    """How the node logs."""

    level: str = Field("INFO", description="`DEBUG`, `INFO`, `WARNING` or `ERROR` (`InfoLevel` is understood too).")
    encoding: str = Field("json", description="`json` (one object a line) or `console`.")
    output_paths: Annotated[list[str], BeforeValidator(items)] = Field(
        default_factory=lambda: ["stderr"], description="Files, `stdout` or `stderr`."
    )
    error_output_paths: Annotated[list[str], BeforeValidator(items)] = Field(
        default_factory=list, description="Files, `stdout` or `stderr` that get errors instead of the others."
    )


class HealthConfig(_Section):
    """The node's own HTTP port for /health, /ready and /metrics."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(0, ge=-1, le=65535, description="Port; 0 takes a free one, -1 switches it off.")


class RunnerConfig(_Section):
    """The runner's settings."""

    subscriber: Subscriber = Field(Subscriber.model_validate({}), description="Taking and settling messages.")
    retry: Retry = Field(Retry.model_validate({}), description="After a failure.")
    logger: LoggerConfig = Field(LoggerConfig.model_validate({}), description="Logging.")
    health: HealthConfig = Field(HealthConfig.model_validate({}), description="Health port.")


class NodeConfig(_Section):
    """Everything a node needs to start."""

    metadata: Metadata = Field(description="Who the node is.")
    nats: Nats = Field(description="Where messages come from and go to.")
    centralized_configuration: CentralizedConfiguration = Field(
        CentralizedConfiguration.model_validate({}), description="Shared configuration, one bucket per scope."
    )
    minio: Minio = Field(Minio.model_validate({}), description="Persistent storage.")
    model_registry: ModelRegistryConfig = Field(ModelRegistryConfig.model_validate({}), description="Models.")
    auth: Auth = Field(Auth.model_validate({}), description="Identity server for the storage keys.")
    predictions: PredictionsConfig = Field(PredictionsConfig.model_validate({}), description="Prediction store.")
    measurements: MeasurementsConfig = Field(MeasurementsConfig.model_validate({}), description="OpenTelemetry.")
    traces: TracesConfig = Field(TracesConfig.model_validate({}), description="OpenTelemetry traces.")
    runner: RunnerConfig = Field(RunnerConfig.model_validate({}), description="How the runner works.")


def leaves(model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    """Return dotted key -> pydantic field of every setting below `model`, with the names the documents use."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= leaves(field.annotation, f"{key}.")
        else:
            found[key] = field
    return found


def nats_secrets() -> dict[str, str]:
    """User, password and token of the NATS server, from the environment: they do not belong on a command line."""
    found = {key: os.environ.get(f"KAI_NATS_{key.upper()}", "") for key in ("user", "password", "token")}
    return {key: value for key, value in found.items() if value}
