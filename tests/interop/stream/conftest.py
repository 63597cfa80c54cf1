"""The published panoseti-grpc in an environment of its own, against our server and clients."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fieldstation.testing import running

RELEASE = "0.3.5"


@pytest.fixture(scope="session")
def published() -> Path:
    """The interpreter of the environment; built once, outside the tree."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    version = f"py{sys.version_info.major}{sys.version_info.minor}"
    folder = cache / "fieldstation" / "interop" / f"panoseti-grpc-{RELEASE}-{version}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        uv = Path(sys.executable).with_name("uv")
        for command in (
            [uv, "venv", "-q", "--clear", folder, "--python", sys.executable],
            # ipython: its modules import it without declaring it.
            [uv, "pip", "install", "-q", "--python", python, f"panoseti-grpc=={RELEASE}", "ipython"],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
            if done.returncode != 0:
                pytest.fail(f"{' '.join(map(str, command))} failed: {done.stderr}")
        (folder / "complete").touch()
    return python


class PublishedClient:
    def __init__(self, python: Path, port: int) -> None:
        self.python, self.port = python, port

    def start(self, command: str, **options) -> subprocess.Popen[str]:
        script = Path(__file__).with_name("published_client.py")
        return subprocess.Popen(
            [self.python, script, str(self.port), command, json.dumps(options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/tmp")},
        )

    def end(self, process: subprocess.Popen[str]):
        try:
            out, errors = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            out, errors = process.communicate()
            pytest.fail(f"the published client did not end. It wrote:\n{out}\n{errors}")
        assert process.returncode == 0, errors
        return json.loads(out.splitlines()[-1])

    def run(self, command: str, **options):
        return self.end(self.start(command, **options))


@pytest.fixture
def data_dir(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def our_server(tmp_path):
    config = tmp_path / "server.json"
    config.write_text(json.dumps({"daq_process": ""}))
    with running("fieldstation", "stream", "serve", "--port", "0", "--config", config) as server:
        server.port = int(server.url.rpartition(":")[2])
        yield server


@pytest.fixture
def client(published, our_server):
    return PublishedClient(published, our_server.port)
