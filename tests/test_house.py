"""The rules of the house that no linter knows."""

import importlib
import inspect
import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import click
import pytest
from packaging.requirements import Requirement

from fieldstation.core import plugins
from fieldstation.core.plugins import LazyNames

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src/fieldstation"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = set(PYPROJECT["project"]["optional-dependencies"])
PACKAGES = sorted(path.parent.name for path in SOURCE.glob("*/__init__.py"))

pytestmark = pytest.mark.timeout(120)


def run(*command, cwd=ROOT, **kwargs):
    return subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False, **kwargs
    )


def python(script, *flags):
    done = run(sys.executable, *flags, "-c", script)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def tracked():
    return [ROOT / name for name in run("git", "ls-files").stdout.splitlines() if (ROOT / name).is_file()]


# Floors


def lint_imports(root):
    tool = Path(sys.executable).with_name("lint-imports")
    return run(tool, "--no-cache", "--config", root / "pyproject.toml", cwd=root, env={"PYTHONPATH": str(root / "src")})


def test_imports_run_down():
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("path", "text", "complaint"),
    [
        ("station/__init__.py", "import fieldstation.fleet\n", "floors of the house BROKEN"),
        ("core/retry.py", "import click\n", "standard library only BROKEN"),
        ("helpers2/__init__.py", "", "helpers2"),
    ],
)
def test_the_floors_would_notice(tmp_path, path, text, complaint):
    """A station that knows fleet, a core that knows click, and a package that nobody placed."""
    shutil.copytree(SOURCE, tmp_path / "src/fieldstation", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    planted = tmp_path / "src/fieldstation" / path
    planted.parent.mkdir(exist_ok=True)
    with planted.open("a") as file:
        file.write(text)
    done = lint_imports(tmp_path)
    assert done.returncode != 0
    assert complaint in done.stdout + done.stderr


# Light imports

LOADED = "import json, sys; before = set(sys.modules); import {}; print(json.dumps(sorted(set(sys.modules) - before)))"


def tops(names):
    return {name.partition(".")[0] for name in names}


def test_importing_the_package_loads_nothing_else():
    loaded = python(LOADED.format("fieldstation"))
    assert tops(loaded) - set(sys.stdlib_module_names) == {"fieldstation"}
    assert not [name for name in loaded if name.startswith("fieldstation.") and name != "fieldstation.core"]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_face_loads_no_package_of_an_extra(package):
    allowed = {"click"} if package == "cli" else set()
    assert tops(python(LOADED.format(f"fieldstation.{package}"))) - set(sys.stdlib_module_names) <= {
        "fieldstation",
        *allowed,
    }


def test_the_command_line_starts_without_the_heavy_packages():
    heavy = {
        "grpc",
        "nats",
        "prefect",
        "socketio",
        "starlette",
        "pydantic",
        "fastapi",
        "sqlalchemy",
        "numpy",
        "aiohttp",
    }
    assert not tops(python(LOADED.format("fieldstation.cli.main"))) & (heavy | {"rich", "loguru", "paho"})


# Installs


def closure(requirements):
    """The distributions that `pip install` of these would bring, from what is installed here."""
    found, todo = {}, [Requirement(text) for text in requirements]
    while todo:
        requirement = todo.pop()
        for extra in requirement.extras or {""}:
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
                continue
            if requirement.name in found:
                continue
            found[requirement.name] = metadata.distribution(requirement.name)
            for text in found[requirement.name].requires or []:
                below = Requirement(text)
                if below.marker is None or any(
                    below.marker.evaluate({"extra": wanted}) for wanted in requirement.extras or {""}
                ):
                    todo.append(below)
    return found


BASE = closure(PYPROJECT["project"]["dependencies"])


def test_the_base_install_has_no_compiled_dependency():
    """A single-core ARMv6 board finds no wheels for compiled packages and has no compiler."""
    assert "rich" in BASE
    assert "markdown-it-py" in BASE
    for name, distribution in BASE.items():
        tags = re.findall(r"^Tag: (.+)$", distribution.read_text("WHEEL") or "", re.MULTILINE)
        assert tags, name
        assert all(tag.endswith("-none-any") for tag in tags), f"{name} is compiled: {tags}"


# In a subprocess, so that nothing is imported yet: only the base install can be found.
BLOCKED = """
import importlib, json, sys
base = set({base!r}) | set(sys.stdlib_module_names) | {{"fieldstation"}}

class Absent:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in base and not top.startswith("_sysconfigdata"):  # the standard library builds that name
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
from fieldstation.core.errors import MissingExtraError
"""


def blocked(script):
    names = {name for name, owners in metadata.packages_distributions().items() if set(owners) & set(BASE)}
    return python(BLOCKED.format(base=sorted(names)) + script)


def faces():
    found = {}
    for package in ["fieldstation", *(f"fieldstation.{name}" for name in PACKAGES)]:
        module = importlib.import_module(package)
        lazy = vars(module).get("__getattr__")
        if isinstance(lazy, LazyNames):
            found[package] = lazy
    return found


def test_a_missing_extra_answers_with_its_install_command():
    """Each name of each face either works in a base install or says in one sentence what to install."""
    script = f"""
answers = {{}}
for package in {list(faces())!r}:
    face = importlib.import_module(package)
    for name in face.__getattr__.offered:
        try:
            getattr(face, name)
        except MissingExtraError as error:
            answers[f"{{package}}.{{name}}"] = str(error)
print(json.dumps(answers))
"""
    for name, answer in blocked(script).items():
        extra = re.search(r"pip install 'fieldstation\[([\w-]+)\]'$", answer)
        assert extra is not None, f"{name}: {answer}"
        assert extra[1] in EXTRAS


def test_every_command_of_a_base_install_helps_or_says_what_to_install():
    script = """
import click
from fieldstation.cli.main import cli

def walk(command, name):
    with click.Context(command, info_name=name) as context:
        command.get_help(context)
        if isinstance(command, click.Group):
            for below in command.list_commands(context):
                try:
                    found = command.get_command(context, below)
                except MissingExtraError as error:
                    answers[f"{name} {below}"] = str(error)
                else:
                    walk(found, f"{name} {below}")

answers = {}
walk(cli, "fieldstation")
print(json.dumps(answers))
"""
    for name, answer in blocked(script).items():
        assert "pip install 'fieldstation[" in answer, name


def test_every_extra_that_the_code_names_exists():
    calls = re.compile(r"(?:require|MissingExtraError)\([^()]*(?:\(\)[^()]*)*extra=\"([\w-]+)\"")
    named = {extra for path in SOURCE.rglob("*.py") for extra in calls.findall(path.read_text())}
    named |= {lazy.extra for lazy in faces().values() if lazy.extra is not None}
    assert named
    assert named <= EXTRAS


def test_everything_we_register_as_a_plugin_loads():
    ours = [plugin for plugin in plugins.listing() if plugin.distribution.startswith("fieldstation ")]
    assert [(plugin.name, plugin.problem) for plugin in ours if plugin.problem] == []
    declared = PYPROJECT["project"].get("entry-points", {})
    assert {plugin.name for plugin in ours} == {name for group in declared.values() for name in group}


# What is generated is up to date


@pytest.mark.parametrize("tool", ["reference", "protos", "architecture"])
def test_generated_files_are_up_to_date(tool):
    done = run(sys.executable, f"tools/{tool}.py", "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_pinned_uv_is_the_one_of_the_constraints():
    constraints = (ROOT / "constraints.txt").read_text()
    pinned = (ROOT / "tools/uv.txt").read_text().strip()
    assert pinned.startswith("uv==")
    assert pinned + "\n" in constraints


# What is offered is explained


def offered():
    for package, lazy in faces().items():
        for name in lazy.offered:
            yield pytest.param(package, name, id=f"{package}.{name}")
    testing = importlib.import_module("fieldstation.testing")
    for name in testing.__all__:
        yield pytest.param("fieldstation.testing", name, id=f"fieldstation.testing.{name}")


@pytest.mark.parametrize(("package", "name"), list(offered()))
def test_a_name_that_a_face_offers_says_what_its_name_does_not(package, name):
    thing = getattr(importlib.import_module(package), name)
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        return  # a ready-made object: its class speaks for it
    text = thing.__doc__ or ""
    own_words = set(re.findall(r"[a-z]+", re.sub(r"([A-Z])", r" \1", name).lower().replace("_", " ")))
    new_words = set(re.findall(r"[a-z]+", text.lower())) - own_words
    assert len(new_words) >= 5, f"{package}.{name} says only: {text!r}"


def commands():
    from fieldstation.cli.main import cli

    def walk(command, context):
        yield context.command_path, command
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                found = command.get_command(context, name)
                yield from walk(found, click.Context(found, info_name=name, parent=context))

    return walk(cli, click.Context(cli, info_name="fieldstation"))


def test_every_command_and_option_says_what_it_does():
    for name, command in commands():
        assert command.help, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.opts}"


def test_every_setting_is_described():
    from pydantic import BaseModel

    models = []
    for path in SOURCE.rglob("*config.py"):
        name = ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
        for model in vars(importlib.import_module(name)).values():
            if inspect.isclass(model) and issubclass(model, BaseModel) and model.__module__ == name:
                models.append(model.__name__)
                for setting, field in model.model_fields.items():
                    assert field.description, f"{name}.{model.__name__}.{setting}"
    assert {"ControlConfig", "WorkerConfig", "ServerConfig", "Config", "ApprovalsConfig"} <= set(models)


# The tree


def test_no_file_grows_past_its_limit():
    long = {
        str(path.relative_to(ROOT)): lines
        for folder in ("src", "tools", "bench", "examples")
        for path in (ROOT / folder).rglob("*.py")
        if "/pb/" not in str(path) and (lines := path.read_text().count("\n")) > 400
    }
    assert long == {}


def test_no_file_has_a_name_that_says_nothing():
    banned = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}
    # The document's own spelling of an import path; it only passes names on.
    documented = {ROOT / "src/fieldstation/fleet/client/lib/utils.py"}
    named = {path for path in tracked() if path.suffix == ".py" and path.stem in banned}
    assert named - documented == set()


def test_every_package_says_what_lives_there():
    for package in PACKAGES:
        assert importlib.import_module(f"fieldstation.{package}").__doc__, package


# Written in pieces, so that this file does not hold what it forbids.
FORBIDDEN = re.compile(
    "|".join(
        [
            "pypi" + r"\.org",
            "files" + r"\.pythonhosted",
            r"--(?:extra-)?index-url +https?://\w",
            "/" + "root/",
            "/work" + "/",
        ]
    )
)


def test_no_file_holds_an_index_address_or_a_path_of_somebodys_machine():
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found = FORBIDDEN.search(text)
        assert found is None, f"{path.relative_to(ROOT)}: {found[0] if found else ''}"


def test_the_commands_of_the_house_are_all_there():
    shown = run("make", "help").stdout
    for target in ("demo", "test", "check", "bench", "interop", "soak", "docs", "lock", "venv", "protos", "dist"):
        assert re.search(rf"^{target}  ", shown, re.MULTILINE), target
    ci = (ROOT / ".ci/run").read_text()
    assert "make check" in ci
    assert "make test" in ci


# Documentation


def links_of(page):
    return re.findall(r"\]\(([^)#:]+\.md)", page.read_text())


@pytest.mark.parametrize("folder", ["tutorials", "how-to", "explanations"])
def test_the_first_page_of_the_documentation_links_every_page_once(folder):
    links = [link for link in links_of(ROOT / "docs/index.md") if link.startswith(folder)]
    assert sorted(links) == sorted(f"{folder}/{page.name}" for page in (ROOT / "docs" / folder).glob("*.md"))


@pytest.mark.parametrize("folder", ["decisions", "reference", "migrate"])
def test_the_index_of_a_folder_links_every_page_once(folder):
    links = [link for link in links_of(ROOT / "docs" / folder / "index.md") if "/" not in link]
    assert sorted(links) == sorted(page.name for page in (ROOT / "docs" / folder).glob("*.md") if page.stem != "index")


def test_a_decision_has_a_number_of_its_own_and_its_title_says_the_same():
    pages = [page for page in (ROOT / "docs/decisions").glob("*.md") if page.stem != "index"]
    numbers = [int(page.name[:4]) for page in pages]
    assert len(numbers) == len(set(numbers)), sorted(number for number in numbers if numbers.count(number) > 1)
    assert [int(page.read_text().removeprefix("# ").partition(".")[0]) for page in pages] == numbers
