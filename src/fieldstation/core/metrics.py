"""Prometheus' text format, for processes that are too small to carry its library.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

CONTENT_TYPE = "text/plain; version=0.0.4"

Family = tuple[str, str, Iterable[tuple[Mapping[str, str], float]]]  # type, help, (labels, value) of each sample


def exposition(families: Mapping[str, Family]) -> str:
    """Return the text of name -> family. Numbers are written in full: a counter of millions still counts by one."""
    lines: list[str] = []
    for name, (kind, text, samples) in families.items():
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
        lines += [f"{name}{_labels(labels)} {_number(value)}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _labels(labels: Mapping[str, str]) -> str:
    listed = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items())
    return f"{{{listed}}}" if listed else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
