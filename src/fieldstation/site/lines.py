"""Where in a TOML file a setting stands. The standard library's reader does not say; this one only looks for lines."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence

_HEADER = re.compile(r"\s*\[{1,2}\s*(?P<path>[^\[\]]+?)\s*\]{1,2}\s*(#.*)?$")
_PART = re.compile(r"""\s*(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|([A-Za-z0-9_-]+))\s*(\.|=|$)""")


class Lines:
    """The line number (from 1) of every table and key of a TOML text that is known to be valid."""

    def __init__(self, text: str) -> None:
        self._found: dict[tuple[str, ...], int] = {}
        table: tuple[str, ...] = ()
        pending = ""  # a value that goes on over several lines
        for number, line in enumerate(text.splitlines(), 1):
            if pending:
                pending += "\n" + line
                pending = "" if _is_whole(pending) else pending
            elif header := _HEADER.match(line):
                table = tuple(_keys(header["path"]))
                self._remember(table, number)
            elif keys := _keys(line, until_equals=True):
                self._remember((*table, *keys), number)
                pending = "" if _is_whole(line) else line

    def _remember(self, path: tuple[str, ...], number: int) -> None:
        for length in range(1, len(path) + 1):
            self._found.setdefault(path[:length], number)

    def of(self, path: Sequence[str]) -> int:
        """Return the line of the setting, or of the innermost table around it that the file has; 1 for none."""
        wanted = tuple(path)
        while wanted and wanted not in self._found:
            wanted = wanted[:-1]
        return self._found.get(wanted, 1)


def _keys(text: str, *, until_equals: bool = False) -> list[str]:
    keys: list[str] = []
    at = 0
    while part := _PART.match(text, at):
        double, single, bare, end = part.groups()
        keys.append(double if double is not None else single if single is not None else bare)
        at = part.end()
        if end == "=":
            return keys
        if end == "":
            break
    return [] if until_equals else keys


def _is_whole(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True
