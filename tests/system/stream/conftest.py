import json
from contextlib import contextmanager

import pytest

from fieldstation.testing import running
from fieldstation.testing.frame_server import RunWriter


@pytest.fixture
def data_dir(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def serve(tmp_path):
    """`with serve("--simulate") as server`: a frame server on a free port, with any settings as keywords."""

    @contextmanager
    def start(*options, **settings):
        config = tmp_path / f"server-{len(list(tmp_path.glob('server-*')))}.json"
        config.write_text(json.dumps({"daq_process": "", **settings}))
        with running("fieldstation", "stream", "serve", "--port", "0", "--config", config, *options) as server:
            server.host = server.url.partition("//")[2]
            server.port = int(server.host.rpartition(":")[2])
            yield server

    return start


@pytest.fixture(autouse=True)
def runs_are_closed(monkeypatch):
    """Close what a test's RunWriters opened: a forgotten file is a warning, and those are errors."""
    opened = []
    begin = RunWriter.__init__

    def noted(self, *arguments, **options):
        begin(self, *arguments, **options)
        opened.append(self)

    monkeypatch.setattr(RunWriter, "__init__", noted)
    yield
    for run in opened:
        run.pff.close()
