"""Versions of station software: `MAJOR.MINOR.PATCH`, with `-alpha.N`, `-beta.N` or `-rc.N` before a release."""

from __future__ import annotations

import functools
import re
from typing import Any

_FORM = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:-(alpha|beta|rc)\.(\d+))?", re.ASCII)
_RANK = {"alpha": 0, "beta": 1, "rc": 2, None: 3}


@functools.total_ordering
class Version:
    """A checked version string (kept in `root`); orders by number, then alpha < beta < rc < release."""

    __slots__ = ("_key", "root")

    def __init__(self, root: str) -> None:
        match = _FORM.fullmatch(root)
        if match is None:
            raise ValueError(f"{root!r} is not a version; the form is 1.2.3, 1.2.3-alpha.4, -beta.4 or -rc.4")
        self.root = root
        major, minor, patch, stage, number = match.groups()
        self._key = (int(major), int(minor), int(patch), _RANK[stage], int(number or 0))

    def as_identifier(self) -> str:
        """Return the bare string, which also names the version's directory."""
        return self.root

    def as_tag(self) -> str:
        """Return the git tag, `v` in front."""
        return f"v{self.root}"

    def __str__(self) -> str:
        return self.root

    def __repr__(self) -> str:
        return f"Version({self.root!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self._key == other._key

    def __lt__(self, other: Version) -> bool:
        return self._key < other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        # Imported here: the constants need a Version and must not cost pydantic's memory.
        from pydantic_core import core_schema

        def check(value: Any) -> Version:
            if isinstance(value, Version):
                return value
            if not isinstance(value, str):
                raise ValueError("a version is a string such as 1.2.3")
            return cls(value)

        return core_schema.no_info_plain_validator_function(
            check, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^{_FORM.pattern}$", "examples": ["1.2.3", "1.2.3-rc.1"]}


def is_version(text: str) -> bool:
    """Say whether `text` has the form of a version."""
    return _FORM.fullmatch(text) is not None
