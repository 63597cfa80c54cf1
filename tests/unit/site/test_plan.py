from __future__ import annotations

import json
import tomllib
from pathlib import Path

import click
import pytest

from fieldstation.cli.main import cli as root
from fieldstation.site.errors import NothingToRunError, UnknownMachineError, UnknownRoleError
from fieldstation.site.file import read
from fieldstation.site.model import levels
from fieldstation.site.plan import OURS, roles, this_machine, with_defaults
from fieldstation.site.supervise import write_private

SPLIT = """
[site]
name = "hill"
machine = "server"
[machines]
server = "10.0.0.1"
bench = "bench.lan"
[nats]
host = "10.0.0.1"
token_file = "nats.token"
[fleet.control]
host = "10.0.0.1"
[fleet.worker.a]
machine = "bench"
simulate = 3
twin = true
[stream.camera]
machine = "bench"
host = "0.0.0.0"
insecure = true
simulate = true
[pipeline.pulses]
manifest = "krt.yaml"
"""


def _site(folder: Path, text: str):
    path = folder / "site.toml"
    path.write_text(text)
    (folder / "krt.yaml").touch()
    (folder / "nats.token").write_text("very-secret\n")
    return read(path)


def _settings(role) -> dict:
    (text,) = role.files.values()
    return tomllib.loads(text)


def test_each_machine_runs_its_own_roles_and_knows_where_the_others_are(tmp_path: Path) -> None:
    site = _site(tmp_path, SPLIT)
    server = {role.name: role for role in roles(site, machine="server")}
    bench = {role.name: role for role in roles(site, machine="bench")}
    assert list(server) == ["nats", "fleet.control", "pipeline.pulses"]
    assert list(bench) == ["fleet.worker.a", "stream.camera"]
    assert server["nats"].host == "10.0.0.1"  # where it listens: there it is tried whether it is ready
    worker = _settings(bench["fleet.worker.a"])["fleet"]["worker"]
    assert worker["control"] == ["http://10.0.0.1:8080"]
    assert worker["settings"]["simulated"] == {"boards": 3, "answers": "twin"}
    assert worker["driver"] == ["simulated"]
    assert bench["stream.camera"].environment["FIELDSTATION_NATS_URL"] == "nats://10.0.0.1:4222"
    assert server["pipeline.pulses"].environment["FIELDSTATION_SITE_STREAMS"] == "camera=bench.lan:50051"
    panel = _settings(server["fleet.control"])["web"]
    assert panel["streams"] == {"camera": "bench.lan:50051"}
    assert panel["pipelines"]["pulses"]["product"] == "pulses"


def test_no_secret_is_in_a_command_line(tmp_path: Path) -> None:
    for role in roles(_site(tmp_path, SPLIT), machine="server"):
        assert "very-secret" not in " ".join(role.command)


def test_the_message_server_is_there_when_somebody_needs_it(tmp_path: Path) -> None:
    site = _site(tmp_path, '[fleet.control]\n[pipeline.pulses]\nmanifest = "krt.yaml"\n')
    assert "nats" not in site.roles
    assert list(with_defaults(site).roles) == ["nats", "fleet.control", "pipeline.pulses"]
    nats, *_ = roles(site)
    (text,) = nats.files.values()
    assert "jetstream" in text
    assert 'mqtt {\n  listen: "127.0.0.1:1883"\n}' in text
    other = _site(tmp_path, '[nats]\nurl = "nats://far:4222"\n[pipeline.pulses]\nmanifest = "krt.yaml"\n')
    (pipeline,) = roles(other)
    assert pipeline.command[pipeline.command.index("--nats") + 1] == "nats://far:4222"


def test_roles_start_after_what_they_need(tmp_path: Path) -> None:
    site = _site(tmp_path, '[fleet.worker.a]\n[fleet.control]\n[pipeline.pulses]\nmanifest = "krt.yaml"\n')
    found = [[role.name for role in level] for level in levels(roles(site))]
    assert found == [["nats", "fleet.control"], ["fleet.worker.a", "pipeline.pulses"]]


def test_only_some_roles(tmp_path: Path) -> None:
    site = _site(tmp_path, SPLIT)
    assert [role.name for role in roles(site, machine="bench", only=["fleet.worker"])] == ["fleet.worker.a"]
    with pytest.raises(UnknownRoleError, match=r"no role 'fleet\.work'"):
        roles(site, machine="bench", only=["fleet.work"])
    with pytest.raises(NothingToRunError, match="bench"):
        roles(site, machine="bench", only=["nats"])


def test_a_machine_that_the_file_does_not_name_is_refused(tmp_path: Path) -> None:
    site = _site(tmp_path, SPLIT)
    with pytest.raises(UnknownMachineError, match="--machine"):
        this_machine(site, "elsewhere")
    assert this_machine(_site(tmp_path, "[fleet.control]\n"), "elsewhere") is None


def test_a_station_gets_the_time_that_its_uplinks_may_take_to_drain(tmp_path: Path) -> None:
    (tmp_path / "roof" / "config").mkdir(parents=True)
    config = {"backend": {"max_drain_time": 30}, "uplinks": {"b": {"max_drain_time": 70}}}
    (tmp_path / "roof" / "config" / "config.json").write_text(json.dumps(config))
    _, station = roles(_site(tmp_path, '[station.roof]\ndir = "roof"\n'))
    assert station.drains_s == 70
    assert station.command[-2:] == ("run", str(tmp_path / "roof"))


def test_any_program_runs_beside_the_rest(tmp_path: Path) -> None:
    site = _site(
        tmp_path,
        '[fleet.control]\n[program.sky]\ncommand = ["fieldstation", "kit"]\ndir = "."\nafter = ["fleet.control"]\n',
    )
    _, program = roles(site)
    assert program.command[1:] == ("-m", "fieldstation", "kit")
    assert program.environment["FIELDSTATION_CONTROL"] == "http://127.0.0.1:8080"


def test_roles_that_wait_for_each_other_start_nevertheless(tmp_path: Path) -> None:
    text = '[program.x]\ncommand = ["a"]\nafter = ["program.y"]\n[program.y]\ncommand = ["b"]\nafter = ["program.x"]\n'
    assert len(levels(roles(_site(tmp_path, text)))[0]) == 2


def test_who_connects_to_nats_over_tls_knows_the_authority(tmp_path: Path) -> None:
    text = '[nats]\ntls_certificate = "c.pem"\ntls_key = "k.pem"\ntls_ca = "ca.pem"\n[fleet.control]\n'
    nats, control, pipeline = roles(_site(tmp_path, text + '[pipeline.p]\nmanifest = "krt.yaml"\n'))
    assert pipeline.command[-2:] == ("--ca", str(tmp_path / "ca.pem"))
    assert "tls://127.0.0.1:4222" in pipeline.command
    web = _settings(control)["web"]
    assert web["nats_ca"] == web["pipelines"]["p"]["ca"] == str(tmp_path / "ca.pem")
    assert 'cert_file: "c.pem"' in next(iter(nats.files.values()))


def test_who_asks_a_frame_server_over_tls_knows_the_authority(tmp_path: Path) -> None:
    text = '[fleet.control]\n[stream.c]\nsimulate = true\ntls_certificate = "c.pem"\ntls_key = "k.pem"\n'
    control, stream = roles(_site(tmp_path, text + 'tls_ca = "ca.pem"\n'))
    assert _settings(control)["web"]["stream_ca"] == str(tmp_path / "ca.pem")
    assert stream.environment["FIELDSTATION_SITE_STREAM_CA"] == str(tmp_path / "ca.pem")
    assert "tls_ca" not in _settings(stream)["stream"]


def test_every_role_is_started_with_words_that_its_command_understands(tmp_path: Path) -> None:
    (tmp_path / "roof" / "config").mkdir(parents=True)
    (tmp_path / "roof" / "config" / "config.json").write_text("{}")
    text = """
[nats]
tls_ca = "ca.pem"
[fleet.control]
[fleet.worker.a]
[station.roof]
dir = "roof"
[stream.camera]
simulate = true
[pipeline.pulses]
manifest = "krt.yaml"
run = {count = "count.py"}
[flow.worker.bench]
allow = ["ls *"]
"""
    planned = roles(_site(tmp_path, text))
    assert len(planned) == 7
    for role in planned[1:]:
        for path, settings in role.files.items():
            write_private(path, settings)
        command: click.Command = root
        words = list(role.command[len(OURS) :])
        context = None
        while isinstance(command, click.Group):
            context = command.make_context("x", words, parent=context)
            _, found, words = command.resolve_command(context, [*context._protected_args, *context.args])
            assert found is not None
            command = found
        command.make_context("x", words, parent=context)  # UsageError for what is missing or too much
