"""Find the program of a process on this machine, and the node inside a Python file or behind an entry point."""

from __future__ import annotations

import runpy
import shlex
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fieldstation.core.plugins import load
from fieldstation.pipeline.errors import NoCommandError, NodeNotFoundError
from fieldstation.pipeline.node import Declared, Node

NODE_PREFIX = "node:"  # an image `node:echo` is the entry point `echo` of group fieldstation.nodes
EXEC_PREFIX = "exec:"  # an image `exec:./mix --fast` is a command line


def command_for(process: str, workflow: str, image: str, folder: Path, given: Mapping[str, str]) -> list[str]:
    """Return the argument list that runs `process`, or raise NoCommandError naming where it was looked for.

    Looked at in order: `--run PROCESS=FILE`, an image with the prefix `node:` or `exec:`, then files beside krt.yaml:
    `WORKFLOW/PROCESS.py`, `PROCESS.py`, `PROCESS/main.py`, `nodes/PROCESS.py`.
    """
    node = [sys.executable, "-m", "fieldstation.pipeline"]
    if process in given:
        value = given[process]
        return [*node, str(folder / value)] if value.endswith(".py") else shlex.split(value)
    if image.startswith(NODE_PREFIX):
        return [*node, image.removeprefix(NODE_PREFIX)]
    if image.startswith(EXEC_PREFIX):
        return shlex.split(image.removeprefix(EXEC_PREFIX))
    candidates = [f"{workflow}/{process}.py", f"{process}.py", f"{process}/main.py", f"nodes/{process}.py"]
    for candidate in candidates:
        if (folder / candidate).is_file():
            return [*node, str((folder / candidate).resolve())]
    raise NoCommandError(process=process, candidates=" or ".join(candidates))


def run(what: str, start: Any) -> None:
    """Run the node that `what` names: a Python file, or a registered node; `start(node)` runs a declared one."""
    if what.endswith(".py") or "/" in what:
        run_file(Path(what), start)
    else:
        start(entry_point_node(what))


def run_file(path: Path, start: Any) -> None:
    """Run the node in a Python file: `start(node)` for a declared one; a file with a main of its own as a script."""
    try:
        source = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise NodeNotFoundError(path=path, problem=error) from error
    sys.path.insert(0, str(path.resolve().parent))
    if "__main__" in source:
        sys.argv = [str(path)]
        runpy.run_path(str(path), run_name="__main__")
        return
    try:
        names = runpy.run_path(str(path), run_name=path.stem)
    except Exception as error:
        line = next(
            (f.lineno for f in reversed(traceback.extract_tb(error.__traceback__)) if f.filename == str(path)), 0
        )
        raise NodeNotFoundError(path=path, problem=f"line {line}: {type(error).__name__}: {error}") from error
    start(node_in(names, str(path)))


def entry_point_node(name: str) -> Node:
    """Return the node registered as `name` in entry point group `fieldstation.nodes`."""
    return node_in({"node": load("nodes", name)}, name)


def node_in(names: Mapping[str, Any], where: str) -> Node:
    """Return the one node among a module's names."""
    found: dict[int, Node] = {}
    for value in names.values():
        node = value.node if isinstance(value, Declared) else getattr(value, "node", None)
        if isinstance(node, Node):
            found[id(node)] = node
        elif isinstance(value, Node):
            found[id(value)] = value
    if len(found) != 1:
        problem = "use @task, @exit or @trigger on one function" if not found else f"it has {len(found)}, give one"
        raise NodeNotFoundError(path=where, problem=problem)
    return next(iter(found.values()))
