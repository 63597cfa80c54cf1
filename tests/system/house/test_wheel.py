"""What people install is the wheel, not the source tree: it is built, installed beside nothing else, and run."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
UV = Path(sys.executable).with_name("uv")

pytestmark = pytest.mark.timeout(180)


def run(*command, **kwargs):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **kwargs)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_typing_mark_the_data_files_and_the_license(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "fieldstation/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    in_tree = {
        str(path.relative_to(ROOT / "src"))
        for path in (ROOT / "src/fieldstation").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert in_tree <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "bench/", "docs/"))]


def test_a_base_install_of_the_wheel_runs(wheel, tmp_path):
    # What the base needs was fetched when this environment was made, so uv has it at hand and no network is asked.
    place = tmp_path / "venv"
    run(UV, "venv", "-q", "--python", sys.executable, place)
    offline = ["--offline", "--constraints", ROOT / "constraints.txt"]
    run(UV, "pip", "install", "-q", "--python", place / "bin/python", *offline, wheel)
    command = place / "bin/fieldstation"
    assert run(command, "--version", cwd=tmp_path).startswith("fieldstation, version ")
    assert "tokens" in run(command, "--help", cwd=tmp_path)
    assert run(command, "tokens", "create", "ann", "--file", tmp_path / "tokens.json", cwd=tmp_path).startswith("fst_")
    listed = run(UV, "pip", "list", "-q", "--python", place / "bin/python").lower()
    assert "pydantic" not in listed
