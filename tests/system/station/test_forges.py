"""The updater against servers that answer as GitHub and GitLab document it: public and private, signed and not."""

from __future__ import annotations

import http.server
import io
import json
import shutil
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from fieldstation.station.config import Config
from fieldstation.station.errors import UpdateError
from fieldstation.station.updater import Updater
from fieldstation.station.updates.release import Repository, pack
from fieldstation.station.version import Version

pytestmark = pytest.mark.timeout(60)

TOKEN = "t0ken-of-the-station"


class Handler(http.server.BaseHTTPRequestHandler):
    """GET only; `answer(path)` says what: (status, headers, body)."""

    def do_GET(self) -> None:
        status, headers, body = self.server.answer(unquote(urlsplit(self.path).path), self.headers)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


class Server(http.server.ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        raise NotImplementedError


class Storage(Server):
    """Where the forges keep large files: another host, which refuses whoever shows it a token that is not its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__()

    def answer(self, path, headers):
        if "Authorization" in headers or "PRIVATE-TOKEN" in headers:
            return 400, {}, b"<Error><Code>InvalidArgument</Code></Error>"
        file = self.folder / path.lstrip("/")
        return (200, {}, file.read_bytes()) if file.is_file() else (404, {}, b"")


class Forge(Server):
    """The releases of lab/ivy: what is in `metadata` belongs to the tag `metadata`, each target to its version."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.private = False
        self.asked: list[str] = []
        self.storage = Storage(folder)
        super().__init__()

    def close(self) -> None:
        for server in (self, self.storage):
            server.shutdown()
            server.server_close()

    def file_of(self, tag: str, name: str) -> str | None:
        place = f"metadata/{name}" if tag == "metadata" else f"targets/{name}"
        belongs = tag == "metadata" or name == f"ivy-{tag.removeprefix('v')}.tar.gz"
        return place if belongs and (self.folder / place).is_file() else None

    def at_storage(self, place: str | None) -> tuple[int, dict[str, str], bytes]:
        return (
            (302, {"Location": f"{self.storage.url}/{place}"}, b"") if place else (404, {}, b'{"message":"Not Found"}')
        )


class GitHub(Forge):
    def answer(self, path, headers):
        self.asked.append(path)
        authorised = headers.get("Authorization") == f"Bearer {TOKEN}"
        match path.strip("/").split("/"):
            case ["lab", "ivy", "releases", "download", tag, name]:
                # The web address takes no token: what is private is not there.
                return self.at_storage(None if self.private else self.file_of(tag, name))
            case ["repos", "lab", "ivy", *_] if self.private and not authorised:
                return self.at_storage(None)
            case ["repos", "lab", "ivy", "tarball", tag]:
                assert headers["Accept"] == "application/vnd.github+json"
                assert headers["X-GitHub-Api-Version"] == "2022-11-28"
                return self.at_storage(f"tags/{tag}.tar.gz")
            case ["repos", "lab", "ivy", "releases", "tags", tag]:
                names = [p.name for p in sorted(self.folder.rglob("*")) if self.file_of(tag, p.name)]
                assets = [{"id": 1000 + i, "name": name, "state": "uploaded"} for i, name in enumerate(names)]
                self.numbers = {1000 + i: (tag, name) for i, name in enumerate(names)}
                return 200, {}, json.dumps({"tag_name": tag, "assets": assets}).encode()
            case ["repos", "lab", "ivy", "releases", "assets", number]:
                if headers["Accept"] != "application/octet-stream":
                    return 200, {}, b'{"url": "a description, not the file"}'
                return self.at_storage(self.file_of(*self.numbers[int(number)]))
        return 404, {}, b""


class GitLab(Forge):
    def answer(self, path, headers):
        self.asked.append(path)
        if self.private and headers.get("PRIVATE-TOKEN") != TOKEN:
            return 302, {"Location": f"{self.url}/users/sign_in"}, b""
        match path.strip("/").split("/"):
            case ["users", "sign_in"]:
                return 200, {}, b"<html>Sign in</html>"
            case ["lab", "ivy", "-", "releases", tag, "downloads", name] if not self.private:
                return self.at_storage(self.file_of(tag, name))
            case ["api", "v4", "projects", "lab", "ivy", "releases", tag, "downloads", name]:  # `lab%2Fivy`, unquoted
                return self.at_storage(self.file_of(tag, name))
            case ["lab", "ivy", "-", "archive", tag, name] if name == f"ivy-{tag}.tar.gz":
                return 200, {}, (self.folder / "tags" / f"{tag}.tar.gz").read_bytes()
        return 404, {}, b""


@pytest.fixture(scope="module")
def releases(tmp_path_factory) -> Path:
    """A signed 1.3.0, and its tag as the forges archive it."""
    folder = tmp_path_factory.mktemp("releases")
    repository = Repository(folder, folder / "keys", "only a test")
    repository.ensure(365)
    project = folder / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text('[project]\nname = "ivy"\nversion = "1.3.0"\n')
    repository.publish(pack(project, folder / "targets"), 365)
    (folder / "tags").mkdir()
    with tarfile.open(folder / "tags" / "v1.3.0.tar.gz", "w:gz") as tar:
        content = (project / "pyproject.toml").read_bytes()
        info = tarfile.TarInfo("lab-ivy-0a1b2c3/pyproject.toml")  # GitHub names the folder after the commit
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return folder


@pytest.fixture(params=[("github", GitHub), ("gitlab", GitLab)], ids=["github", "gitlab"])
def forge(request, releases) -> Iterator[Forge]:
    name, kind = request.param
    made = kind(releases)
    made.name = name
    yield made
    made.close()


@pytest.fixture
def home(tmp_path, monkeypatch, releases) -> Path:
    folder = tmp_path / "ivy" / "1.2.3"
    (folder / "config" / "trust").mkdir(parents=True)
    (folder / "pyproject.toml").write_text('[project]\nname = "ivy"\nversion = "1.2.3"\n')
    shutil.copy(releases / "metadata" / "1.root.json", folder / "config" / "trust" / "root.json")
    monkeypatch.setenv("FIELDSTATION_STATION_DIR", str(folder))
    return folder


def updater_for(forge, config_for, token=None) -> Updater:
    config = config_for(None)
    config["updater"] = {
        "repository": "lab/ivy", "provider": forge.name, "provider_host": forge.url, "access_token": token,
        "source_conflict_strategy": "overwrite",
    }  # fmt: skip
    return Updater(Config.load_from_string(json.dumps(config)))


@pytest.mark.parametrize("private", [False, True], ids=["public", "private"])
def test_a_signed_release_is_taken(forge, home, config_for, private):
    forge.private = private
    updater_for(forge, config_for, TOKEN if private else None).download_source_code(Version("1.3.0"))
    assert '"1.3.0"' in (home.parent / "1.3.0" / "pyproject.toml").read_text()
    assert TOKEN not in str(forge.asked)


def test_a_private_release_without_its_token_is_refused_and_the_token_is_not_told(forge, home, config_for):
    forge.private = True
    for token in (None, "wr0ng"):
        with pytest.raises(UpdateError) as caught:
            updater_for(forge, config_for, token).download_source_code(Version("1.3.0"))
        assert "wr0ng" not in str(caught.value)
    assert not (home.parent / "1.3.0").exists()


def test_a_version_that_the_source_lacks_is_refused(forge, home, config_for):
    with pytest.raises(UpdateError, match=r"no release ivy-9\.9\.9"):
        updater_for(forge, config_for).download_source_code(Version("9.9.9"))


@pytest.mark.parametrize("private", [False, True], ids=["public", "private"])
def test_an_unsigned_tag_is_taken_where_the_station_allows_it(forge, home, config_for, private, monkeypatch):
    shutil.rmtree(home / "config" / "trust")
    monkeypatch.setenv("FIELDSTATION_STATION_UNSIGNED_UPDATES", "allow")
    forge.private = private
    updater_for(forge, config_for, TOKEN if private else None).download_source_code(Version("1.3.0"))
    assert '"1.3.0"' in (home.parent / "1.3.0" / "pyproject.toml").read_text()
