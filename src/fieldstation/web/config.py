"""Settings of the panel: which sources it shows beside the control it is mounted on."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class PipelineSource(BaseModel):
    """`[web.pipelines.NAME]`: one pipeline on the panel."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    manifest: Path = Field(description="Its krt.yaml.")
    product: str = Field("", description="Product it belongs to; by default the folder of the manifest.")
    nats: str = Field("", description="Its NATS address; by default what the running pipeline wrote down.")
    ca: str = Field("", description="PEM file of the authority that signed that server's certificate.")
    state: Path | None = Field(None, description="Folder of its store and state, where that is not the default one.")


class PanelConfig(BaseModel):
    """`[web]`: the panel at `/ui`, and the sources that it shows beside its control."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = Field(True, description="Serve the panel, where the extra `web` is installed.")
    title: str = Field("Fieldstation", min_length=1, max_length=60, description="Shown at the top of each page.")
    session_hours: float = Field(12, gt=0, le=24 * 90, description="A login ends after so many hours.")
    login_failures: int = Field(
        5, ge=1, description="Wrong logins in a row from one address; then each further one waits longer, up to 5 min."
    )
    nats: str = Field("", description="NATS server to which stations report (uplink `nats`), such as nats://host:4222.")
    nats_token_file: Path | None = Field(None, description="File whose first line is the token for that server.")
    nats_ca: Path | None = Field(None, description="PEM file of the authority that signed its certificate.")
    station_stream: str = Field("STATION", min_length=1, description="The stations' `nats_connection.stream`.")
    station_prefix: str = Field("station", min_length=1, description="Their `nats_connection.subject_prefix`.")
    station_history_s: float = Field(3600, ge=0, description="What stations sent in so many seconds is read at start.")
    streams: dict[str, str] = Field(
        default_factory=dict, description="Frame servers: name = host:port. FIELDSTATION_STREAM_TOKEN is their token."
    )
    stream_ca: Path | None = Field(None, description="PEM file; frame servers are then asked over TLS.")
    pipelines: dict[str, PipelineSource] = Field(default_factory=dict, description="Pipelines, by name.")
