"""docs/tutorials/watch-frames.md, run from top to bottom; docs/…/preview.ipynb, too."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fieldstation.testing import free_port, running

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/tutorials/watch-frames.md").read_text()

pytestmark = pytest.mark.timeout(240)


def commands():
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        yield from (shlex.split(line) for line in block.splitlines())


def run(words, folder):
    command = [sys.executable, "-m", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, f"{words}: {done.stderr}"


def test_the_tutorial_works(tmp_path):
    simulate, serve, *rest = commands()
    port = str(free_port())  # the page's own port may be taken on this machine
    *middle, replay = rest
    with (
        running(*simulate, cwd=tmp_path),
        running(*serve, "--port", port, cwd=tmp_path) as server,
    ):
        assert server.url == f"http://127.0.0.1:{port}"
        for words in middle:
            asks_a_server = words[2] in ("ping", "hosts", "view", "record")
            run([*words, *(["--host", f"127.0.0.1:{port}"] if asks_a_server else [])], tmp_path)
        [script] = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
        script = script.replace('"127.0.0.1"', f'"127.0.0.1:{port}"')
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=100)
        assert len(done.stdout.splitlines()) == 2
    assert (tmp_path / "frames.png").stat().st_size > 10_000
    assert (tmp_path / "night.h5").exists()
    with running(*replay, "--port", "0", cwd=tmp_path):
        pass


def test_the_notebook_runs(monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("MPLBACKEND", "Agg")
    notebook = nbformat.read(ROOT / "examples/stream/preview.ipynb", as_version=4)
    with running("fieldstation", "stream", "serve", "--port", "0", "--simulate") as server:
        monkeypatch.setenv("FIELDSTATION_EXAMPLE_HOST", server.url.removeprefix("http://"))
        NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
