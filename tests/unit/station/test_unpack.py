from __future__ import annotations

import io
import tarfile

import pytest

from fieldstation.station.errors import UnsafeReleaseError
from fieldstation.station.updates import unpack as unpacking
from fieldstation.station.updates.unpack import unpack


def archive(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content
                tar.addfile(info)
    return path


def test_the_one_folder_becomes_the_target(tmp_path):
    unpack(archive(tmp_path / "r.tar.gz", [("x-1/a.txt", b"A"), ("x-1/b/c.txt", b"C")]), tmp_path / "1.0.0")
    assert (tmp_path / "1.0.0" / "b" / "c.txt").read_bytes() == b"C"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1.0.0", "r.tar.gz"]


@pytest.mark.parametrize(
    "members",
    [
        [("x/../../evil", b"!")],
        [("/etc/evil", b"!")],
        [("x/link", (tarfile.SYMTYPE, "/etc"))],
        [("x/link", (tarfile.SYMTYPE, "../../..")), ("x/link/evil", b"!")],
        [("x/hard", (tarfile.LNKTYPE, "../../etc/passwd"))],
        [("x/dev", (tarfile.CHRTYPE, ""))],
        [("x/a", b""), ("y/b", b"")],
        [],
    ],
)
def test_an_archive_that_reaches_outside_is_refused_and_leaves_nothing(tmp_path, members):
    target = tmp_path / "root" / "1.0.0"
    target.parent.mkdir()
    with pytest.raises(UnsafeReleaseError):
        unpack(archive(tmp_path / "r.tar.gz", members), target)
    assert list(target.parent.iterdir()) == []


def test_an_archive_that_is_absurdly_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacking, "MAX_MEMBERS", 3)
    with pytest.raises(UnsafeReleaseError, match="large"):
        unpack(archive(tmp_path / "r.tar.gz", [(f"x/{n}", b"") for n in range(5)]), tmp_path / "1.0.0")


@pytest.mark.parametrize("garbage", [b"", b"garbage", b"\x1f\x8b\x08garbage"])
def test_garbage_is_refused(tmp_path, garbage):
    (tmp_path / "r.tar.gz").write_bytes(garbage)
    with pytest.raises(UnsafeReleaseError):
        unpack(tmp_path / "r.tar.gz", tmp_path / "1.0.0")


def test_what_was_there_is_replaced_only_by_something_whole(tmp_path):
    target = tmp_path / "1.0.0"
    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(UnsafeReleaseError):
        unpack(archive(tmp_path / "bad.tar.gz", [("x/../../evil", b"!")]), target)
    assert (target / "old").exists()
    unpack(archive(tmp_path / "good.tar.gz", [("x/new", b"new")]), target)
    assert [p.name for p in target.iterdir()] == ["new"]
