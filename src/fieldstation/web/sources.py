"""Where the pages take from: the control this panel is mounted on, and what its settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldstation.core.errors import MissingExtraError
from fieldstation.core.plugins import require
from fieldstation.core.service import Service
from fieldstation.fleet.control import Control
from fieldstation.flow.desk import Desk
from fieldstation.web.beside import Beside
from fieldstation.web.config import PanelConfig

if TYPE_CHECKING:  # each needs an extra of its own, which a control may lack
    from fieldstation.web.frames import FrameSource
    from fieldstation.web.pipelines import PipelineWatch
    from fieldstation.web.stations import Stations


class Sources:
    """Everything that pages show. `missing` says in a sentence why a page that is configured has nothing."""

    def __init__(self, control: Control, desk: Desk | None, config: PanelConfig) -> None:
        self.control = control
        self.desk = desk
        self.config = config
        self.missing: dict[str, str] = {}
        self.streams: dict[str, FrameSource] = {}
        self.stations: Stations | None = None
        self.pipelines: dict[str, PipelineWatch] = {}
        for name, set_up in {
            "streams": self._set_up_streams,
            "stations": self._set_up_stations,
            "pipelines": self._set_up_pipelines,
        }.items():
            try:
                set_up()
            except MissingExtraError as error:
                self.missing[name] = str(error)

    def services(self) -> list[Service]:
        """What must run for the sources that are configured."""
        found: list[Service] = [
            *self.streams.values(),
            *self.pipelines.values(),
            *([self.stations] if self.stations else []),
        ]
        return [Beside(service) for service in found]

    def _set_up_streams(self) -> None:
        if self.config.streams:
            require("grpc", extra="stream", feature="The page of streams")
            from fieldstation.web.frames import FrameSource

            ca = self.config.stream_ca
            self.streams = {name: FrameSource(name, target, ca=ca) for name, target in self.config.streams.items()}

    def _set_up_stations(self) -> None:
        if self.config.nats:
            require("nats", extra="station", feature="The page of stations")
            from fieldstation.web.stations import Stations

            self.stations = Stations(self.config)

    def _set_up_pipelines(self) -> None:
        if self.config.pipelines:
            require("nats", extra="pipeline", feature="The page of pipelines")
            require("yaml", extra="pipeline", feature="The page of pipelines")
            from fieldstation.web.pipelines import PipelineWatch

            self.pipelines = {name: PipelineWatch(name, source) for name, source in self.config.pipelines.items()}
