from __future__ import annotations

from pathlib import Path

import pytest

from fieldstation.site.errors import SiteFileError
from fieldstation.site.file import read


def _read(folder: Path, text: str):
    path = folder / "site.toml"
    path.write_text(text)
    return read(path)


def _problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(SiteFileError) as caught:
        _read(folder, text)
    return str(caught.value.fields["problems"]).splitlines()


def test_roles_are_named_by_their_tables(tmp_path: Path) -> None:
    site = _read(
        tmp_path,
        '[site]\nname = "hill"\n[fleet.control]\n[fleet.worker.a]\nsimulate = 2\n[stream.cam]\nsimulate = true\n',
    )
    assert list(site.roles) == ["fleet.control", "fleet.worker.a", "stream.cam"]
    assert site.roles["fleet.worker.a"].name == "a"
    assert site.folder == tmp_path / "state"


def test_every_mistake_is_told_with_its_line(tmp_path: Path) -> None:
    found = _problems(
        tmp_path,
        '[site]\nname = "Hill Top"\n\n[fleet.control]\nprot = 8080\nlease_s = -1\n\n[fleet.worker.a]\nport = "x"\n'
        "[stations.roof]\n[station]\ndir = 3\n",
    )
    assert [line.split(":")[0] for line in found] == [f"line {n}" for n in (2, 5, 6, 9, 10, 12)]
    assert "did you mean 'port'?" in found[1]
    assert "[fleet.control] lease_s" in found[2]  # also where its table has a setting that nobody knows
    assert "[fleet.worker.a] port" in found[3]
    assert "did you mean [station]?" in found[4]
    assert "write it below a name of your choice: [station.NAME]" in found[5]


def test_a_setting_deep_in_a_role_is_told_with_its_line(tmp_path: Path) -> None:
    found = _problems(tmp_path, "[stream.cam]\n[stream.cam.simulate_daq_cfg]\nmovie_type = 'img3'\n")
    assert found[0].startswith("line 3: [stream.cam] simulate_daq_cfg.movie_type:")


def test_a_port_is_given_once_on_a_machine(tmp_path: Path) -> None:
    assert _problems(tmp_path, "[fleet.worker.a]\nport = 9000\n[fleet.worker.b]\nport = 9000\n") == [
        "line 4: [fleet.worker.b] port: port 9000 is used by fleet.worker.a already"
    ]
    two = '[machines]\nx = "10.0.0.1"\ny = "10.0.0.2"\n'
    site = _read(tmp_path, f'{two}[fleet.worker.a]\nmachine = "x"\n[fleet.worker.b]\nmachine = "y"\n')
    assert site.machine_of("fleet.worker.b") == "y"


def test_a_machine_must_be_known_and_named(tmp_path: Path) -> None:
    found = _problems(
        tmp_path, '[machines]\nx = "10.0.0.1"\n[fleet.control]\n[fleet.worker.a]\nmachine = "z"\nport = 0\n'
    )
    assert found == [
        "line 3: [fleet.control]: it needs `machine`, or [site] does: the file is for several machines",
        "line 5: [fleet.worker.a] machine: there is no machine 'z'; [machines] names x",
    ]


def test_a_station_or_manifest_that_is_not_there_is_told_before_anything_starts(tmp_path: Path) -> None:
    found = _problems(tmp_path, '[station.roof]\ndir = "roof"\n[pipeline.p]\nmanifest = "krt.yaml"\n')
    assert "make one with `fieldstation station new`" in found[0]
    assert "there is no file" in found[1]


@pytest.mark.parametrize("text", ["[site", "[site]\nname = 1\nname = 2", "\x00"])
def test_a_file_that_is_no_toml_is_told_in_one_sentence(tmp_path: Path, text: str) -> None:
    with pytest.raises(SiteFileError, match="is not valid TOML"):
        _read(tmp_path, text)


def test_a_message_server_beyond_this_machine_needs_a_token(tmp_path: Path) -> None:
    found = _problems(tmp_path, '[nats]\nhost = "0.0.0.0"\n')
    assert found[0].startswith("line 2: [nats] host: ")
    assert "token_file" in found[0]


def test_a_role_waits_for_roles_that_exist(tmp_path: Path) -> None:
    found = _problems(tmp_path, '[program.x]\ncommand = ["true"]\nafter = ["fleet.control"]\n')
    assert found == ["line 3: [program.x] after: there is no role 'fleet.control'"]


@pytest.mark.parametrize(
    "text", ["flow = 3", "fleet = [1]", "web = true", "[[flow]]\nx = 1", "machines = 1", "site = []"]
)
def test_a_table_that_is_none_is_a_mistake_and_no_crash(tmp_path: Path, text: str) -> None:
    assert _problems(tmp_path, text)[0].startswith("line 1: ")
