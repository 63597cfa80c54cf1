from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path

import yaml

from fieldstation.site.export import export, write
from fieldstation.site.file import read

SITE = """
[site]
name = "hill"
[fleet.control]
[fleet.worker.a]
simulate = 2
[pipeline.p]
manifest = "krt.yaml"
"""


def _site(folder: Path):
    (folder / "krt.yaml").touch()
    (folder / "site.toml").write_text(SITE)
    return read(folder / "site.toml")


def _unit(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=True, interpolation=None)
    parser.optionxform = str
    parser.read_string(text)
    return parser


def test_one_unit_starts_the_site_at_boot(tmp_path: Path) -> None:
    made = export(_site(tmp_path), None, ["systemd"])
    assert list(made) == ["fieldstation-hill.service"]
    unit = _unit(made["fieldstation-hill.service"])
    assert set(unit["Service"]) == {
        "Type", "User", "WorkingDirectory", "ExecStart", "Restart", "RestartSec", "KillMode", "TimeoutStopSec",
        "NoNewPrivileges",
    }  # fmt: skip
    command = shlex.split(unit["Service"]["ExecStart"])
    assert Path(command[0]).is_absolute()
    assert command[-2:] == ["up", str(tmp_path / "site.toml")]
    assert float(unit["Service"]["TimeoutStopSec"]) == 13
    assert unit["Install"]["WantedBy"] == "multi-user.target"


def test_a_unit_for_each_role_starts_after_those_it_needs(tmp_path: Path) -> None:
    made = export(_site(tmp_path), None, ["systemd"], each=True)
    target = _unit(made.pop("fieldstation-hill.target"))
    assert set(target["Unit"]["Wants"].split()) == set(made)
    unit = _unit(made["fieldstation-hill-pipeline-p.service"])
    assert {"fieldstation-hill-nats.service", "fieldstation-hill-fleet-control.service"} <= set(
        unit["Unit"]["After"].split()
    )
    assert unit["Service"]["ExecStart"].endswith("--only pipeline.p")


def test_the_compose_file_has_a_service_for_each_role(tmp_path: Path) -> None:
    made = yaml.safe_load(export(_site(tmp_path), None, ["compose"])["compose.yaml"])
    assert made["name"] == "hill"
    services = made["services"]
    assert set(services) == {"nats", "fleet-control", "fleet-worker-a", "pipeline-p"}
    keys = {
        "image",
        "build",
        "command",
        "network_mode",
        "restart",
        "init",
        "stop_grace_period",
        "volumes",
        "depends_on",
    }
    for service in services.values():
        assert set(service) <= keys
        assert re.fullmatch(r"\d+s", service["stop_grace_period"])
        assert all(name in services for name in service.get("depends_on", []))
    assert services["pipeline-p"]["command"] == ["up", "/site/site.toml", "--only", "pipeline.p"]


def test_the_container_file_holds_the_extras_that_the_roles_need(tmp_path: Path) -> None:
    text = export(_site(tmp_path), None, ["container"])["Containerfile"]
    instructions = [line.split()[0] for line in text.splitlines() if line and not line.startswith("#")]
    assert instructions[0] == "FROM"
    assert set(instructions) <= {"FROM", "RUN", "USER", "WORKDIR", "VOLUME", "STOPSIGNAL", "ENTRYPOINT", "CMD"}
    assert "fieldstation[fleet,flow,pipeline,station,stream,usb,web]==" in text


def test_files_are_written(tmp_path: Path) -> None:
    (path,) = write(tmp_path / "out", export(_site(tmp_path), None, ["systemd"]))
    assert path.read_text().startswith("[Unit]")


def test_a_folder_with_blanks_and_percents_is_one_word_for_systemd(tmp_path: Path) -> None:
    folder = tmp_path / "my 100% site"
    folder.mkdir()
    text = export(_site(folder), None, ["systemd"])["fieldstation-hill.service"]
    assert 'my 100%% site/site.toml"' in text
