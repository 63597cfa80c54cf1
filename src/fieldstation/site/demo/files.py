"""The files of the demonstration's site: what a person would write for a site of their own."""

from __future__ import annotations

import json
import random
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from fieldstation.core.errors import FieldstationError

BITSTREAM_BYTES = 104_090
STATION_VERSION = "0.1.0"
BOARDS = 4

_SITE = """\
# The demonstration's site: everything simulated, on this machine.
[site]
name = "demo"

[nats]                      # the message server: JetStream for pipelines and stations, MQTT beside it
port = {nats}
mqtt_port = {mqtt}

[fleet.control]             # reservations, approvals, the panel
port = {control}
dead_after_s = 30           # a worker that crashed and is started again keeps its reservations
return_s = 60

[fleet.worker.bench]        # four simulated boards
port = {worker}
simulate = {boards}
settings.simulated.measure_s = 0.4

[station.roof]              # a weather station
dir = "roof/{station_version}"

[program.telescope]         # stands for the acquisition software: writes frames to files, as that does
command = ["fieldstation", "stream", "simulate", "telescope", "--rate", "{rate:g}", "--module", "1"]
says_ready = true
after = ["fleet.control"]

[stream.camera]             # serves these frames
port = {stream}
data_dir = "telescope"
daq_process = ""            # do not look for the acquisition software: this is none
after = ["program.telescope"]

[pipeline.night]            # joins pulse counts, frame statistics and weather into one table
manifest = "pipeline/krt.yaml"
ack_wait_s = 10             # what a killed node had in hand is handed out again after so long
"""

_MANIFEST = """\
version: v1.0.0
description: Pulse counts, frame statistics and weather, joined into one table
workflows:
  - name: join
    type: data
    processes:
      - {name: lab, type: trigger, image: "node:together", config: {bridges: "frames,stations,fleet"}}
      - {name: join, type: task, image: "node:join", subscriptions: [lab, lab.pulses]}
      - {name: table, type: exit, image: "node:archive", subscriptions: [join], config: {folder: ../table}}
"""

_STATION = f"""\
[project]
name = "roof"
version = "{STATION_VERSION}"

[tool.fieldstation.station.procedures]
weather = "simulated_weather"
"""


class NoPortError(FieldstationError):
    """There is no free port on this machine."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the demonstration's things are; `url` is the control server, `ports` are those of all its servers."""

    folder: Path
    control: int
    nats: int
    ports: tuple[int, ...] = ()

    @property
    def site(self) -> Path:
        """The site file."""
        return self.folder / "site.toml"

    @property
    def url(self) -> str:
        """The control server."""
        return f"http://127.0.0.1:{self.control}"

    @property
    def nats_url(self) -> str:
        """The message server."""
        return f"nats://127.0.0.1:{self.nats}"

    @property
    def manifest(self) -> Path:
        """The pipeline."""
        return self.folder / "pipeline" / "krt.yaml"

    @property
    def archive(self) -> Path:
        """What came out of the pipeline."""
        return self.folder / "table" / "archive.sqlite3"

    @property
    def station(self) -> Path:
        """The station's project."""
        return self.folder / "roof" / STATION_VERSION

    @property
    def frames(self) -> Path:
        """What the telescope wrote."""
        return self.folder / "telescope"

    @property
    def report(self) -> Path:
        """What is shown at the end."""
        return self.folder / "report"


def write(folder: Path, *, port: int, rate: float = 5.0) -> Layout:
    """Write the site's files into `folder`, which exists, and choose its ports: the usual ones where they are free and
    `port` for control, or any when `port` is 0."""
    taken: list[int] = []
    usual = (port, 4222, 1883, 8081, 50051) if port else (0,) * 5
    control, nats, mqtt, worker, stream = (free_port(wanted, taken) for wanted in usual)
    layout = Layout(folder, control, nats, (control, nats, mqtt, worker, stream))
    ports = {"control": control, "nats": nats, "mqtt": mqtt, "worker": worker, "stream": stream}
    layout.site.write_text(_SITE.format(**ports, boards=BOARDS, rate=rate, station_version=STATION_VERSION))
    layout.manifest.parent.mkdir(exist_ok=True)
    layout.manifest.write_text(_MANIFEST)
    layout.frames.mkdir(exist_ok=True)
    (layout.station / "config").mkdir(parents=True, exist_ok=True)
    (layout.station / "pyproject.toml").write_text(_STATION)
    (layout.station / "config" / "config.json").write_text(json.dumps(_station_config(layout.nats_url), indent=1))
    return layout


def forget(folder: Path) -> None:
    """Remove what an earlier demonstration kept here, so that this one's counts are its own."""
    for name in ("state", "table", "telescope", "roof", "report", "circuits"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _station_config(nats: str) -> dict[str, object]:
    return {
        "general": {"config_revision": 1, "software_version": STATION_VERSION, "system_identifier": "roof"},
        "logging_verbosity": {"file_archive": "INFO", "console_prints": "WARNING", "message_sending": "WARNING"},
        "updater": None,
        "backend": {"provider": "nats", "nats_connection": {"servers": [nats]}, "max_drain_time": 20},
    }


def free_port(wanted: int, taken: list[int]) -> int:
    """Return `wanted`, or a free port when it is 0 or in use; it is added to `taken`, which are left out."""
    for port in (wanted, *[0] * 20):
        found = _bound(port)
        if found and found not in taken:
            taken.append(found)
            return found
    raise NoPortError()


def taken(layout: Layout) -> list[int]:
    """Return the ports of the site that another program has, while the site does not run."""
    return [port for port in layout.ports if not _bound(port)]


def _bound(port: int) -> int:
    """Return the port that one could listen on; 0 when it is in use."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
        return int(probe.getsockname()[1])


def make_bitstreams(folder: Path, count: int = 6) -> list[Path]:
    """Write `count` files of the size of real bitstreams, always the same bytes, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"circuit-{number}.bin" for number in range(1, count + 1)]
    for number, path in enumerate(paths):
        path.write_bytes(random.Random(number).randbytes(BITSTREAM_BYTES))
    return paths
