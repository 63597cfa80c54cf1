from __future__ import annotations

import socket
from pathlib import Path

import pytest

from fieldstation.site import doctor
from fieldstation.site.doctor import examine


def _found(path: Path | None) -> dict[str, doctor.Finding]:
    return {finding.what: finding for finding in examine(path)}


def _site(folder: Path, text: str) -> Path:
    path = folder / "site.toml"
    path.write_text(text)
    return path


def test_every_finding_that_is_not_fine_says_what_to_do() -> None:
    for finding in examine(None):
        assert finding.text
        assert finding.level == "ok" or finding.mend


def test_a_port_that_is_taken_is_wrong(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = _found(_site(tmp_path, f"[fleet.control]\nport = {port}\n"))
    assert found["fleet.control"].level == "wrong"
    assert f"127.0.0.1:{port}: address already in use" in found["fleet.control"].text
    assert "[fleet.control] port" in found["fleet.control"].mend


def test_a_server_that_does_not_answer_is_wrong(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    found = _found(
        _site(tmp_path, f'[nats]\nurl = "nats://127.0.0.1:{port}"\n[fleet.control]\nport = {port}\n'
                        f'database = "postgresql://u@127.0.0.1:{port}/x"\n')
    )  # fmt: skip
    assert found["nats"].level == found["database"].level == "wrong"
    assert "does not answer" in found["nats"].text


def test_a_broken_site_file_is_told_and_the_rest_is_still_looked_at(tmp_path: Path) -> None:
    found = _found(_site(tmp_path, "[fleet.control]\nprot = 1\n"))
    assert found["site file"].level == "wrong"
    assert "line 2" in found["site file"].text
    assert "python" in found


def test_an_extra_that_a_role_needs_is_wrong_when_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "EXTRAS", {"fleet": ("no_such_package_x",), "usb": ("no.such.package",)})
    found = _found(_site(tmp_path, "[fleet.control]\nport = 1\n"))
    assert found["extra fleet"].level == "wrong"
    assert found["extra usb"].level == "note"
    assert found["extra usb"].mend == "pip install 'fieldstation[usb]'"


def test_a_damaged_database_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "fleet.db").write_bytes(b"no database at all, but long enough to look like one" * 20)
    assert _found(_site(tmp_path, "[fleet.control]\n"))["database"].level == "wrong"


def test_a_full_disk_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LEAST_FREE", 1 << 62)
    assert _found(_site(tmp_path, "[fleet.control]\n"))["disk"].level == "wrong"
