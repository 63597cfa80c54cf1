"""The example is what the documentation tells people to copy: it is installed as a package and its own test is run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[4] / "examples/my_driver"

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("my_driver")
    source = folder / "source"
    shutil.copytree(EXAMPLE, source)
    command = [sys.executable, "-m", "uv", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--python", sys.executable, "--target", folder / "site", source], check=True)
    return folder


def run(installed, *command):
    env = {**os.environ, "PYTHONPATH": str(installed / "site")}
    return subprocess.run([sys.executable, "-m", *command], env=env, capture_output=True, text=True, check=False)


def test_the_example_package_is_found_as_a_driver(installed):
    listed = json.loads(run(installed, "fieldstation", "plugins", "--json").stdout)
    (mine,) = [plugin for plugin in listed if plugin["name"] == "my_driver"]
    assert (mine["group"], mine["distribution"], mine["problem"]) == ("drivers", "my-driver 0.1.0", None)


def test_the_example_packages_own_test_passes(installed):
    done = run(
        installed, "pytest", "-q", str(installed / "source/tests"), "-c", str(installed / "source/pyproject.toml")
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
