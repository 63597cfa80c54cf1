"""The examples are what the documentation tells people to copy: installed as packages, and their own tests are run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[4] / "examples"

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    sources = [folder / "my_driver", folder / "pulse_count_driver"]
    for source in sources:
        shutil.copytree(EXAMPLES / source.name, source)
    command = [sys.executable, "-m", "uv", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--python", sys.executable, "--target", folder / "site", *sources], check=True)
    return folder


def run(installed, *command):
    env = {**os.environ, "PYTHONPATH": str(installed / "site")}
    return subprocess.run([sys.executable, "-m", *command], env=env, capture_output=True, text=True, check=False)


def test_the_example_packages_are_found_as_drivers(installed):
    listed = json.loads(run(installed, "fieldstation", "plugins", "--json").stdout)
    found = {plugin["name"]: (plugin["group"], plugin["distribution"], plugin["problem"]) for plugin in listed}
    assert found["my_driver"] == ("drivers", "my-driver 0.1.0", None)
    assert found["pulse_count_ports"] == ("drivers", "pulse-count-driver 0.1.0", None)


@pytest.mark.parametrize("example", ["my_driver", "pulse_count_driver"])
def test_an_example_packages_own_test_passes(installed, example):
    source = installed / example
    done = run(installed, "pytest", "-q", str(source / "tests"), "-c", str(source / "pyproject.toml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
