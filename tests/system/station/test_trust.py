"""Releases that must not be installed: each attack is refused with a reason, and nothing is left behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fieldstation.core.errors import FieldstationError
from fieldstation.station.config import Config
from fieldstation.station.errors import UnsafeReleaseError, UpdateError
from fieldstation.station.updater import Updater
from fieldstation.station.updates import fetch
from fieldstation.station.updates.release import Repository, pack
from fieldstation.station.version import Version

pytestmark = pytest.mark.timeout(60)


class Mirror:
    """A release repository behind a web server, and a station's updater that trusts its root."""

    def __init__(self, folder: Path, home: Path, config: dict, server: Any) -> None:
        self.folder = folder / "mirror" / "lab" / "ivy"
        self.projects = folder / "projects"
        self.repository = Repository(self.folder, folder / "keys", "only a test")
        self.repository.ensure(365)
        self.home = home
        trust = home / "config" / "trust"
        trust.mkdir(parents=True)
        shutil.copy(self.folder / "metadata" / "1.root.json", trust / "root.json")

        self.server = server
        config["updater"] = {
            "repository": "lab/ivy", "provider": "http", "source_conflict_strategy": "overwrite",
            "provider_host": server.url,
        }  # fmt: skip
        self.updater = Updater(Config.load_from_string(json.dumps(config)))

    def release(self, version: str, days: int = 365) -> Path:
        project = self.projects / version
        project.mkdir(parents=True)
        (project / "pyproject.toml").write_text(f'[project]\nname = "ivy"\nversion = "{version}"\n')
        archive = pack(project, self.folder / "targets")
        self.repository.publish(archive, days)
        return archive

    def take(self, version: str) -> Path:
        self.updater.download_source_code(Version(version))
        return self.home.parent / version

    def refused(self, version: str, words: str) -> None:
        with pytest.raises(UpdateError, match=words):
            self.take(version)
        assert not (self.home.parent / version).exists()
        assert not list(self.home.parent.glob(".download-*"))


@pytest.fixture
def mirror(tmp_path, config_for, monkeypatch, file_server) -> Mirror:
    home = tmp_path / "ivy" / "1.2.3"
    (home / "config").mkdir(parents=True)
    (home / "pyproject.toml").write_text('[project]\nname = "ivy"\nversion = "1.2.3"\n')
    monkeypatch.setenv("FIELDSTATION_STATION_DIR", str(home))
    return Mirror(tmp_path, home, config_for(None), file_server(tmp_path / "mirror"))


def test_a_signed_release_is_taken_and_the_machines_own_settings_with_it(mirror):
    (mirror.home / "config" / ".env").write_text("A=1\n")
    mirror.release("1.3.0")
    folder = mirror.take("1.3.0")
    assert (folder / "pyproject.toml").is_file()
    assert (folder / "config" / ".env").read_text() == "A=1\n"
    assert (folder / "config" / "trust" / "root.json").is_file()


def test_a_rotated_root_is_followed(mirror):
    mirror.release("1.3.0")
    mirror.take("1.3.0")
    mirror.repository.rotate_root(365)
    mirror.release("1.4.0")
    assert mirror.take("1.4.0").is_dir()


def test_a_root_that_the_old_key_did_not_sign_is_refused(mirror, tmp_path):
    other = Repository(tmp_path / "other", tmp_path / "other-keys", "x")
    other.ensure(365)
    other.rotate_root(365)
    shutil.copy(tmp_path / "other" / "metadata" / "2.root.json", mirror.folder / "metadata" / "2.root.json")
    mirror.release("1.3.0")
    mirror.refused("1.3.0", "root")


def test_a_changed_release_is_refused(mirror):
    archive = mirror.release("1.3.0")
    archive.write_bytes(archive.read_bytes()[:-1] + b"!")
    mirror.refused("1.3.0", "hash|length")


def test_changed_metadata_are_refused(mirror):
    mirror.release("1.3.0")
    targets = mirror.folder / "metadata" / "targets.json"
    targets.write_text(targets.read_text().replace("ivy-1.3.0", "ivy-1.3.1"))
    mirror.refused("1.3.1", "signed|Unsigned")


def test_a_replayed_old_repository_is_refused(mirror):
    mirror.release("1.3.0")
    old = {path.name: path.read_bytes() for path in (mirror.folder / "metadata").iterdir()}
    mirror.release("1.4.0")
    mirror.take("1.4.0")
    for name, content in old.items():
        (mirror.folder / "metadata" / name).write_bytes(content)
    mirror.refused("1.3.0", "version")


def test_a_repository_that_froze_is_refused_when_it_has_expired(mirror):
    mirror.release("1.3.0", days=-1)
    mirror.refused("1.3.0", "expired")


def test_a_release_that_nobody_published_is_refused(mirror):
    mirror.release("1.3.0")
    mirror.refused("9.9.9", "no release")


def test_an_endless_download_is_cut_at_the_length_that_was_signed(mirror):
    mirror.release("1.3.0")
    mirror.server.endless = "ivy-1.3.0.tar.gz"
    mirror.refused("1.3.0", "refused|bytes")


def test_endless_metadata_are_cut(mirror):
    mirror.release("1.3.0")
    mirror.server.endless = "timestamp.json"
    mirror.refused("1.3.0", "refused|bytes")


def test_an_archive_that_reaches_outside_is_refused_although_it_is_signed(mirror):
    import io
    import tarfile

    path = mirror.folder / "targets" / "ivy-1.3.0.tar.gz"
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo("ivy-1.3.0/../../evil")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"!"))
    mirror.repository.publish(path, 365)
    mirror.refused("1.3.0", "wants to write")
    assert not (mirror.home.parent.parent / "evil").exists()


def test_fault_trust_unsigned_code_is_refused_unless_the_station_itself_says_otherwise(mirror, monkeypatch):
    mirror.release("1.3.0")
    shutil.rmtree(mirror.home / "config" / "trust")
    mirror.refused("1.3.0", "no pinned root key")
    monkeypatch.setenv("FIELDSTATION_STATION_UNSIGNED_UPDATES", "allow")
    assert mirror.take("1.3.0").is_dir()


def test_an_unsigned_endless_download_ends_at_the_limit(mirror, monkeypatch):
    shutil.rmtree(mirror.home / "config" / "trust")
    monkeypatch.setenv("FIELDSTATION_STATION_UNSIGNED_UPDATES", "allow")
    monkeypatch.setattr(fetch, "MAX_BYTES", 1_000_000)
    monkeypatch.setattr(fetch.download, "__kwdefaults__", {"max_bytes": 1_000_000, "deadline_s": 30.0})
    mirror.server.endless = "ivy-1.3.0.tar.gz"
    mirror.refused("1.3.0", "more than 1000000 bytes")


def test_a_source_that_is_not_there_is_named_and_its_token_is_not(mirror):
    with pytest.raises(FieldstationError) as caught:
        fetch.download(
            fetch.Request(f"{mirror.server.url}/none?private_token=s3cret"),
            mirror.home / "x",
        )
    assert "404" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_wrong_passphrase_says_so(mirror, tmp_path):
    with pytest.raises(UpdateError, match="passphrase"):
        Repository(mirror.folder, tmp_path / "keys", "wrong").publish(mirror.release("1.5.0"), 1)


def test_refusals_are_one_kind_of_error():
    assert issubclass(UnsafeReleaseError, UpdateError)
