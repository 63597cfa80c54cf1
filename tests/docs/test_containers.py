"""What the container files say is what Fieldstation understands. They are read here; no engine runs them."""

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel
from tests.docs.test_commands import resolve

from fieldstation.fleet.config import CONTROL_VARIABLES, ControlConfig
from fieldstation.fleet.worker_config import FILE_VARIABLES, WORKER_VARIABLES, WorkerConfig

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "containers"
STACKS = {name: yaml.safe_load((FOLDER / name).read_text()) for name in ("compose.yml", "virtual.yml")}
OURS = [
    pytest.param(stack, name, id=f"{stack}-{name}")
    for stack, content in STACKS.items()
    for name, service in content["services"].items()
    if service["image"] == "fieldstation"
]
MODELS: dict[str, type[BaseModel]] = {"control": ControlConfig, "worker": WorkerConfig}


def known_variables(role):
    prefix = f"FIELDSTATION_FLEET_{role.upper()}_"
    documented = {"control": CONTROL_VARIABLES, "worker": WORKER_VARIABLES}[role]
    ours = {prefix + field.upper() for field in MODELS[role].model_fields}
    return ours | {name for names in documented.values() for name in names} | set(FILE_VARIABLES)


def option(command, name):
    return command[command.index(name) + 1] if name in command else None


def instructions():
    text = (FOLDER / "Containerfile").read_text().replace("\\\n", " ")
    return [line.split(" ", 1) for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize(("stack", "name"), OURS)
def test_each_service_is_a_command_with_options_that_exist(stack, name):
    service = STACKS[stack]["services"][name]
    resolve(service["command"])
    assert service["command"][:2] == ["fleet", name]


@pytest.mark.parametrize(("stack", "name"), OURS)
def test_each_variable_is_one_that_the_service_reads(stack, name):
    environment = STACKS[stack]["services"][name].get("environment", {})
    assert set(environment) <= known_variables(name)


@pytest.mark.parametrize(("stack", "name"), OURS)
def test_the_published_port_is_the_one_that_it_listens_on(stack, name):
    service = STACKS[stack]["services"][name]
    port = option(service["command"], "--port")
    assert port == {"control": "8080", "worker": "8081"}[name]
    if service.get("network_mode") != "host":
        assert [published.rpartition(":")[2] for published in service["ports"]] == [port]


def test_the_database_listens_on_5433_and_control_and_its_health_check_say_so_too():
    services = STACKS["compose.yml"]["services"]
    assert option(services["database"]["command"], "-p") == "5433"
    assert services["database"]["ports"] == ["127.0.0.1:5433:5433"]
    assert option(services["database"]["healthcheck"]["test"], "-p") == "5433"
    words = services["control"]["environment"]["FIELDSTATION_FLEET_CONTROL_DATABASE"].strip()
    found = dict(word.split("=", 1) for word in re.sub(r"\$\{.*?\}", "x", words).split())
    assert (found["host"], found["port"]) == ("database", "5433")
    assert found["dbname"] == services["database"]["environment"]["POSTGRES_DB"]
    assert found["user"] == services["database"]["environment"]["POSTGRES_USER"]


def test_only_a_stack_that_this_machine_alone_reaches_is_open_to_everybody():
    for content in STACKS.values():
        for service in content["services"].values():
            if "--insecure" in service["command"]:
                assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_secrets_and_volumes_that_are_used_are_declared():
    content = STACKS["compose.yml"]
    used = {secret for service in content["services"].values() for secret in service.get("secrets", ())}
    assert used == set(content["secrets"])
    volumes = [volume.split(":")[0] for s in content["services"].values() for volume in s.get("volumes", ())]
    assert {volume for volume in volumes if re.fullmatch(r"\w+", volume)} == set(content["volumes"])
    worker = content["services"]["worker"]["command"]
    assert {Path(option(worker, name)).name for name in ("--token-file", "--tokens")} == used


def test_the_containerfile_copies_what_is_there_and_installs_extras_that_exist():
    found = instructions()
    assert {name for name, _ in found} <= {
        "FROM",
        "ARG",
        "RUN",
        "WORKDIR",
        "COPY",
        "ENV",
        "VOLUME",
        "ENTRYPOINT",
        "CMD",
    }
    ignored = (FOLDER / "Containerfile.dockerignore").read_text().splitlines()
    for name, rest in found:
        if name == "COPY":
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert f"!{source}" in ignored, source
    extras = next(rest for name, rest in found if name == "ARG").partition("=")[2].split(",")
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras) <= set(known)
    assert json.loads(next(rest for name, rest in found if name == "ENTRYPOINT")) == ["fieldstation"]
