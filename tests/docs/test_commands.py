"""What the documentation tells people to type exists, and what can be run here is run."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from fieldstation.cli.main import cli

ROOT = Path(__file__).parents[2]
PAGES = [
    page
    for page in [*ROOT.glob("*.md"), *(ROOT / "tests").glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    if "generated" not in page.parts
]

pytestmark = pytest.mark.timeout(120)


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def command_lines(page):
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.match(r"\w+=", words[0]):  # variables before the command
                words = words[1:]
            if words:
                yield words


def resolve(words):
    """Follow the words through the groups; raises for a command or an option that does not exist."""
    command, context = cli, click.Context(cli, info_name="fieldstation")
    todo = list(words)
    while todo and todo[0] not in ("|", ">", "<", "&&", "&", ";"):
        word = todo.pop(0)
        if word in ("-h", "--help"):
            continue
        if word.startswith("-"):
            options = {name: option for option in command.params for name in (*option.opts, *option.secondary_opts)}
            name, _, value = word.partition("=")
            assert name in options, f"{context.command_path} has no option {name}"
            if not (options[name].is_flag or value):
                todo.pop(0)
        elif isinstance(command, click.Group):
            command = command.get_command(context, word)
            assert command is not None, f"{context.command_path} has no command {word}"
            context = click.Context(command, info_name=word, parent=context)


@pytest.mark.parametrize("line", ["tokenz list", "tokens lst", "--log-level debug nothing", "tokens list --jsn"])
def test_a_command_that_does_not_exist_is_noticed(line):
    with pytest.raises(AssertionError, match="has no"):
        resolve(line.split())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_exist(page):
    makefile = (ROOT / "Makefile").read_text()
    for words in command_lines(page):
        program = words[0].rpartition("/")[2]
        if program == "make":
            for target in words[1:]:
                assert "=" in target or re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"
        elif program == "fieldstation":
            resolve(words[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_python_of_a_page_compiles(page):
    for block in blocks(page, "python"):
        compile(block, str(page), "exec", flags=0x2000)  # top-level await is fine in a snippet


def links(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_of_a_page_lead_somewhere(page):
    for link in links(page):
        assert (page.parent / link).exists(), link


def test_the_token_steps_of_the_tutorial_run(tmp_path):
    lines = [words for words in command_lines(ROOT / "docs/tutorials/first-steps.md") if "tokens" in words]
    assert len(lines) == 3
    outputs = []
    for words in lines:
        done = subprocess.run(
            [sys.executable, "-m", "fieldstation", *words[1:]], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        outputs.append(done.stdout)
    token, listing, revoked = outputs
    assert token.startswith("fst_")
    assert listing.split() == ["ann", "operator"]
    assert "1 token of ann" in revoked
    assert token.strip() not in (tmp_path / "tokens.json").read_text()


def test_the_commands_of_the_readme_run(tmp_path):
    for words in command_lines(ROOT / "README.md"):
        if words[0].endswith("fieldstation"):
            command = [sys.executable, "-m", "fieldstation", *words[1:]]
            subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)


def test_the_documentation_builds_without_a_warning_and_fetches_nothing(tmp_path):
    tool = Path(sys.executable).with_name("mkdocs")
    command = [tool, "build", "--strict", "--quiet", "--site-dir", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for page in tmp_path.rglob("*.html"):
        for tag in re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"(https?:[^\"]+)\"", page.read_text()):
            raise AssertionError(f"{page.name} loads {tag}")
