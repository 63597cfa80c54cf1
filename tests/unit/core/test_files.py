"""core.files: whole files or none."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from fieldstation.core.files import replacing, write_file


@pytest.fixture
def narrow_umask():
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_a_file_is_made_with_its_folder_and_then_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    for content in ("größer", b"\x00bytes"):
        write_file(path, content)
        assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("durable", [True, False])
def test_whoever_looks_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with replacing(path, durable=durable) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(TypeError), replacing(path) as beside:
        beside.write_text(b"no text")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    synced: list[tuple[str, bool]] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file", path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    write_file(path, "text")
    assert synced == [("file", False), ("folder", True)]
    write_file(path, "text", durable=False)
    assert len(synced) == 2


@pytest.mark.usefixtures("narrow_umask")
@pytest.mark.parametrize(("mode", "expected"), [(None, 0o600), (0o644, 0o644), (0o600, 0o600), (0o755, 0o755)])
def test_permissions_are_those_asked_for_from_the_first_byte(tmp_path: Path, mode: int | None, expected: int) -> None:
    with replacing(tmp_path / "file", mode) as beside:
        assert stat.S_IMODE(beside.stat().st_mode) == expected
        beside.write_text("secret")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == expected
