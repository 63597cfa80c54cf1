"""`krt.yaml`: read, check completely, and say every mistake with its line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from fieldstation.pipeline.config import pairs
from fieldstation.pipeline.errors import ManifestError
from fieldstation.pipeline.graph import Problem, check_graph
from fieldstation.pipeline.names import NAME, NAME_LIMIT, VERSION

_MEMORY = re.compile(r"\d+([EPTG]i?|Mi?|k|Ki)")
_LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?")


def _name(text: str) -> str:
    if not NAME.fullmatch(text) or len(text) > NAME_LIMIT:
        raise ValueError(
            f"{text!r} must be at most {NAME_LIMIT} lower-case letters, digits and dashes, not beginning or ending "
            "with a dash"
        )
    return text


def _version(text: str) -> str:
    if not VERSION.fullmatch(text):
        raise ValueError(f"{text!r} must look like v1.2.3")
    return text


def _cpu(text: str) -> str:
    if not re.fullmatch(r"\d{3}m|\d+(\.\d+)?", text):
        raise ValueError(f"{text!r} must be cores such as 0.5, or three digits and m such as 100m")
    return text


def _memory(text: str) -> str:
    if not _MEMORY.fullmatch(text):
        raise ValueError(f"{text!r} must be a number with a unit, such as 100Mi or 2G")
    return text


Name = Annotated[str, AfterValidator(_name)]
Pairs = Annotated[dict[str, str], BeforeValidator(pairs)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class ObjectStore(_Part):
    """The object store a process uses."""

    name: Name
    scope: Literal["product", "workflow", "project"] = "workflow"


class Networking(_Part):
    """The port of a trigger that is reachable from outside."""

    targetPort: int = Field(ge=1, le=65535)  # noqa: N815 - the document's spelling
    destinationPort: int = Field(ge=1, le=65535)  # noqa: N815 - as above
    protocol: Literal["HTTP", "GRPC"] = "HTTP"


class CpuRange(_Part):
    """Processor shares: cores as a decimal number, or thousandths as `100m`."""

    request: Annotated[str, AfterValidator(_cpu)]
    limit: Annotated[str, AfterValidator(_cpu)] = ""

    @model_validator(mode="after")
    def _ordered(self) -> CpuRange:
        if self.limit and _cores(self.limit) < _cores(self.request):
            raise ValueError(f"the limit {self.limit} is below the request {self.request}")
        return self


class MemoryRange(_Part):
    """Memory with a unit."""

    request: Annotated[str, AfterValidator(_memory)]
    limit: Annotated[str, AfterValidator(_memory)] = ""

    @model_validator(mode="after")
    def _ordered(self) -> MemoryRange:
        if self.limit and _bytes(self.limit) < _bytes(self.request):
            raise ValueError(f"the limit {self.limit} is below the request {self.request}")
        return self


class ResourceLimits(_Part):
    """What a process may use; on one machine it is informative."""

    CPU: CpuRange
    memory: MemoryRange


class ProcessSpec(_Part):
    """One process of a workflow."""

    name: Name
    type: Literal["trigger", "task", "exit"]
    image: str = Field(min_length=1)
    replicas: int = Field(1, ge=1, le=1000)
    gpu: bool = False
    config: Pairs = Field(default_factory=dict)
    objectStore: ObjectStore | None = None  # noqa: N815 - the document's spelling
    secrets: list[str] | dict[str, str] = Field(default_factory=list)
    subscriptions: list[str] = Field(default_factory=list)
    networking: Networking | None = None
    resourceLimits: ResourceLimits | None = None  # noqa: N815 - the document's spelling
    nodeSelectors: dict[str, str] = Field(default_factory=dict)  # noqa: N815 - as above

    @model_validator(mode="after")
    def _needs(self) -> ProcessSpec:
        if self.type != "trigger" and "subscriptions" not in self.model_fields_set:
            raise ValueError(f"a {self.type} needs subscriptions")
        for key, value in self.nodeSelectors.items():
            if not _LABEL.fullmatch(key) or (value and not _LABEL.fullmatch(value)):
                raise ValueError(f"nodeSelectors {key}: {value} is no label")
        return self


class WorkflowSpec(_Part):
    """One graph of processes."""

    name: Name
    type: Literal["data", "training", "feedback", "serving"]
    config: Pairs = Field(default_factory=dict)
    processes: list[ProcessSpec] = Field(min_length=1)


class Manifest(_Part):
    """One version of a product."""

    version: Annotated[str, AfterValidator(_version)]
    description: str = Field(min_length=1)
    config: Pairs = Field(default_factory=dict)
    workflows: list[WorkflowSpec] = Field(min_length=1)


def load(path: Path) -> Manifest:
    """Read and check `path`; ManifestError lists every mistake with its line."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"The manifest {path} cannot be read: {error}.") from error
    return parse(text, str(path))


def parse(text: str, source: str = "krt.yaml") -> Manifest:
    """Check the text of a manifest."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ManifestError(path=source, count=1, problems=f"{where}not valid YAML: {problem}") from error
    lines: dict[tuple[str | int, ...], int] = {}
    problems = _lines_of(root, (), lines) if root is not None else []
    if not isinstance(data, dict):
        raise ManifestError(path=source, count=1, problems="line 1: a manifest is a map with version and workflows")
    manifest = None
    try:
        manifest = Manifest.model_validate(data)
    except ValidationError as error:
        problems += [_explain(dict(detail), data) for detail in error.errors()]
    if manifest is not None:
        problems += check_graph(manifest)
    if problems:
        told = sorted({(_line(lines, problem.path), _dotted(problem.path), problem.text) for problem in problems})
        text = "\n".join(f"line {line}: {f'{dotted}: ' if dotted else ''}{what}" for line, dotted, what in told)
        raise ManifestError(
            f"{source} has {len(told)} mistake{'s' if len(told) > 1 else ''}:\n{text}",
            path=source,
            count=len(told),
            problems=text,
        )
    assert manifest is not None
    return manifest


def _explain(detail: Mapping[str, Any], data: Any) -> Problem:
    path = tuple(part for part in detail["loc"] if part not in ("list[str]", "dict[str,str]"))
    if detail["type"] == "missing":
        return Problem(path[:-1], f"{path[-1]} is missing")
    if detail["type"] == "extra_forbidden":
        return Problem(path, "there is no such setting")
    if detail["type"] == "literal_error" and path[-1:] == ("scope",):
        return Problem(path, f"unknown scope {detail['input']!r}: product or workflow")
    return Problem(path, detail["msg"].removeprefix("Value error, "))


def _lines_of(node: yaml.Node, path: tuple[str | int, ...], lines: dict[tuple[str | int, ...], int]) -> list[Problem]:
    lines.setdefault(path, node.start_mark.line + 1)
    problems: list[Problem] = []
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            below = (*path, key.value)
            lines[below] = key.start_mark.line + 1
            if key.value in seen:
                problems.append(Problem(below, "the key is there twice"))
            seen.add(key.value)
            problems += _lines_of(value, below, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            problems += _lines_of(value, (*path, index), lines)
    return problems


def _line(lines: Mapping[tuple[str | int, ...], int], path: tuple[str | int, ...]) -> int:
    while path not in lines and path:
        path = path[:-1]
    return lines.get(path, 1)


def _dotted(path: tuple[str | int, ...]) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part}"
    return text


def _cores(text: str) -> float:
    return int(text[:-1]) / 1000 if text.endswith("m") else float(text)


def _bytes(text: str) -> float:
    units = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
    units |= {f"{unit}i": 1024.0 ** (index + 1) for index, unit in enumerate("KMGTPE")}
    number = re.match(r"\d+", text)
    assert number is not None  # _memory has seen it
    return int(number[0]) * units[text[number.end() :]]
