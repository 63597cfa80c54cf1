#!/usr/bin/env python3
"""Write docs/reference/generated/<capability>.md from the code: its commands, settings and errors.

With --check, say which pages are out of date instead.
"""

import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from fieldstation.cli.main import cli
from fieldstation.core.errors import FieldstationError

FOLDER = Path(__file__).parent.parent / "docs/reference/generated"
CAPABILITIES = ["core", "kit", "fleet", "station", "stream", "pipeline", "flow", "web", "site", "cli", "testing"]
NOTE = "<!-- Written by `make reference`; change the code instead. -->"


def modules(capability: str) -> Iterator[ModuleType]:
    """Import and yield every module of a capability but migrations, programs, and what protobuf generated."""
    package = importlib.import_module(f"fieldstation.{capability}")
    yield package
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not re.search(r"\.pb(\.|$)|\.migrations(\.|$)|\.__main__$", found.name):
            yield importlib.import_module(found.name)


def own(module: ModuleType, base: type) -> list[type]:
    """The classes below `base` that a module defines itself."""
    return [
        thing
        for thing in vars(module).values()
        if inspect.isclass(thing) and issubclass(thing, base) and thing.__module__ == module.__name__
    ]


def commands(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """Yield a command and all those below it."""
    yield command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None and not found.hidden:
                yield from commands(found, found.context_class(found, info_name=name, parent=context))


def first_paragraph(thing: object) -> str:
    """The sentence (or the few) that a docstring opens with, on one line."""
    return inspect.cleandoc(thing.__doc__ or "").split("\n\n", 1)[0].replace("\n", " ")


def cell(text: object) -> str:
    """Text that may stand in a table."""
    return str(text).replace("|", "\\|").replace("\n", " ")


def kind(annotation: object) -> str:
    """A type as a person would write it."""
    plain = isinstance(annotation, type) and not hasattr(annotation, "__args__")
    text = annotation.__name__ if plain else str(annotation)
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=\w)", "", text).replace("NoneType", "None")


def default(field: FieldInfo) -> str:
    """What a setting is when nobody sets it; what a function computes may depend on the machine."""
    if field.default_factory is not None:
        return first_paragraph(field.default_factory) if inspect.isfunction(field.default_factory) else ""
    return "required" if field.default is PydanticUndefined else f"`{field.default!r}`"


def command_section(capability: str) -> Iterator[str]:
    """Each command with its help, as `--help` prints it. The page of `cli` has those of no capability."""
    root = cli.context_class(
        cli, info_name="fieldstation", terminal_width=100, max_content_width=100, **cli.context_settings
    )
    for command, context in commands(cli, root):
        top = [*context.command_path.split(), ""][1]
        if (top if top in CAPABILITIES else "cli") == capability:
            yield f"### {context.command_path}\n\n```text\n{command.get_help(context).strip()}\n```\n"


def settings_section(capability: str) -> Iterator[str]:
    """Each settings class with a row for every setting."""
    for module in modules(capability):
        if module.__name__.rpartition(".")[2] != "config":
            continue
        for model in own(module, BaseModel):
            yield f"### {model.__name__}\n\n{first_paragraph(model)}\n"
            yield "| setting | type | default | meaning |\n|---|---|---|---|"
            for name, field in model.model_fields.items():
                columns = [f"`{kind(field.annotation)}`", default(field), field.description or ""]
                yield f"| `{field.alias or name}` | " + " | ".join(map(cell, columns)) + " |"
            yield ""


def errors_section(capability: str) -> Iterator[str]:
    """Each error with its code and its sentence."""
    for module in modules(capability):
        for number, error in enumerate(own(module, FieldstationError)):
            if number == 0:
                yield f"\n`{module.__name__}`\n\n| error | code | what it says |\n|---|---|---|"
            yield f"| `{error.__name__}` | `{error.code}` | {cell(first_paragraph(error))} |"


def page(capability: str) -> str:
    """The whole page, or nothing when there is nothing to say."""
    parts = []
    for title, lines in [
        ("Commands", command_section(capability)),
        ("Settings", settings_section(capability)),
        ("Errors", errors_section(capability)),
    ]:
        text = "\n".join(lines).strip()
        if text:
            parts.append(f"## {title}\n\n{text}\n")
    return "\n".join([f"# {capability}\n\n{NOTE}\n", *parts]) if parts else ""


def main() -> None:
    check = "--check" in sys.argv[1:]
    pages = {FOLDER / f"{capability}.md": page(capability) for capability in CAPABILITIES}
    differ = [path for path, text in pages.items() if (path.read_text() if path.exists() else "") != text]
    differ += set(FOLDER.glob("*.md")) - set(pages)
    if differ:
        names = [str(path.relative_to(FOLDER.parents[2])) for path in differ]
        print("out of date; run `make reference`:" if check else "written:", *names)
    for path in [] if check else differ:
        path.unlink(missing_ok=True)
        if pages.get(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(pages[path])
    sys.exit(1 if check and differ else 0)


if __name__ == "__main__":
    main()
