"""Read a site file and check it completely: every mistake is told with its line, and nothing is started."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from fieldstation.core.config import fields_of, refuse_unknown
from fieldstation.core.errors import ConfigError
from fieldstation.core.security import is_loopback
from fieldstation.flow.config import ApprovalsConfig
from fieldstation.site import config
from fieldstation.site.errors import SiteFileError
from fieldstation.site.lines import Lines
from fieldstation.web.config import PanelConfig

# Table -> the settings of the one role that it is.
SINGLE: dict[tuple[str, ...], type[BaseModel]] = {("nats",): config.NatsRole, ("fleet", "control"): config.ControlRole}
# Table -> the settings of the roles that stand in it by name.
NAMED: dict[tuple[str, ...], type[BaseModel]] = {
    ("fleet", "worker"): config.WorkerRole,
    ("station",): config.StationRole,
    ("stream",): config.StreamRole,
    ("pipeline",): config.PipelineRole,
    ("flow", "worker"): config.FlowWorkerRole,
    ("program",): config.ProgramRole,
}
# Tables that are no role.
PLAIN: dict[tuple[str, ...], type[BaseModel]] = {
    ("site",): config.Site,
    ("flow", "approvals"): ApprovalsConfig,
    ("web",): PanelConfig,
}
MACHINES = ("machines",)

Path_ = tuple[str, ...]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong at a setting (its table and key)."""

    path: Path_
    text: str


@dataclass(frozen=True, slots=True)
class SiteFile:
    """A site file that is in order. `roles` is name -> settings, such as `fleet.worker.bench-1`; `machines` is
    name -> address. `given` has the roles' tables as they were written."""

    path: Path
    site: config.Site
    machines: Mapping[str, str]
    roles: Mapping[str, BaseModel]
    given: Mapping[str, Mapping[str, Any]]
    approvals: Mapping[str, Any] = field(default_factory=dict)
    panel: Mapping[str, Any] = field(default_factory=dict)

    @property
    def base(self) -> Path:
        """The folder that relative paths in the file start from."""
        return self.path.parent

    @property
    def folder(self) -> Path:
        """Where the site keeps its files."""
        return (self.base / self.site.dir).resolve()

    def machine_of(self, role: str) -> str | None:
        """Return the machine that a role runs on; None when the file is for one machine."""
        found: str | None = getattr(self.roles[role], "machine", None) or self.site.machine
        return found


def read(path: Path) -> SiteFile:
    """Read and check a site file; SiteFileError has every mistake with its line."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SiteFileError(f"The site file {path} cannot be read: {error}.", path=path) from error
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SiteFileError(f"The site file {path} is not valid TOML: {error}.", path=path) from error
    lines = Lines(text)
    found, problems = build(data, path.resolve())
    if problems:
        told = sorted({(lines.of(problem.path), f"{_shown(problem.path)}: {problem.text}") for problem in problems})
        listed = "\n".join(f"line {line}: {what}" for line, what in told)
        raise SiteFileError(
            f"The site file {path} is not in order:\n{listed}", path=path, problems=listed, lines=[n for n, _ in told]
        )
    assert found is not None
    return found


def build(data: Mapping[str, Any], path: Path) -> tuple[SiteFile | None, list[Problem]]:
    """Turn the file's tables into settings; the problems are all that is wrong, and then there is no SiteFile."""
    problems: list[Problem] = []
    plain: dict[Path_, BaseModel] = {}
    roles: dict[str, BaseModel] = {}
    given: dict[str, Mapping[str, Any]] = {}
    machines: dict[str, str] = {}
    for table, values in _tables(data, problems):
        if table == MACHINES:
            machines = _machines(values, problems)
        elif table in PLAIN:
            found = _checked(PLAIN[table], table, values, problems)
            if found is not None:
                plain[table], given[".".join(table)] = found, values
        else:
            cls = SINGLE.get(table) or NAMED[table[:-1]]
            filled = {"name": table[-1], **values} if cls is config.WorkerRole else values
            found = _checked(cls, table, filled, problems)
            if found is not None:
                roles[".".join(table)] = found
                given[".".join(table)] = values
    order = [".".join(table) for table in (*SINGLE, *NAMED)]
    roles = dict(sorted(roles.items(), key=lambda role: order.index(kind_of(role[0]))))
    site = plain.get(("site",), config.Site.model_validate({}))
    assert isinstance(site, config.Site)
    made = SiteFile(path, site, machines, roles, given, given.get("flow.approvals", {}), given.get("web", {}))
    if not problems:
        problems += _together(made)
    return (None if problems else made), problems


def kind_of(role: str) -> str:
    """Return the table that a role is, or stands in: `fleet.worker` for `fleet.worker.bench-1`."""
    return role if tuple(role.split(".")) in SINGLE else role.rpartition(".")[0]


def _tables(data: Mapping[str, Any], problems: list[Problem]) -> Iterator[tuple[Path_, Mapping[str, Any]]]:
    """Find the tables that mean something, outermost first; the others are problems."""
    known = {*SINGLE, *NAMED, *PLAIN, MACHINES}
    groups = {path[:1] for path in known if len(path) > 1}
    pending: list[tuple[Path_, Any]] = [((key,), value) for key, value in data.items()]
    for path, value in pending:
        if not isinstance(value, Mapping):
            problems.append(Problem(path, "it must be a table" if path in known | groups else _unknown(path, known)))
        elif path in SINGLE or path in PLAIN or path == MACHINES:
            yield path, value
        elif path in NAMED:
            for name, inner in value.items():
                if isinstance(inner, Mapping) and _NAME.fullmatch(name):
                    yield (*path, name), inner
                elif isinstance(inner, Mapping):
                    problems.append(Problem((*path, name), "a role's name has letters, digits, dashes, underscores"))
                else:
                    title = ".".join(path)
                    problems.append(Problem((*path, name), f"write it below a name of your choice: [{title}.NAME]"))
        elif path in groups:
            pending += [((*path, key), inner) for key, inner in value.items()]
        else:
            problems.append(Problem(path, _unknown(path, known)))


def _unknown(path: Path_, known: set[Path_]) -> str:
    names = sorted(".".join(other) for other in known)
    near = difflib.get_close_matches(".".join(path), names, n=1)
    return f"there is no such table; did you mean [{near[0]}]?" if near else f"known tables are {', '.join(names)}"


def _machines(values: Mapping[str, Any], problems: list[Problem]) -> dict[str, str]:
    for name, address in values.items():
        if not isinstance(address, str) or not address or "/" in address:
            problems.append(Problem(("machines", name), "it must be the name or address that others reach it at"))
    return {name: address for name, address in values.items() if isinstance(address, str)}


def _checked(cls: type[BaseModel], path: Path_, values: Mapping[str, Any], problems: list[Problem]) -> BaseModel | None:
    before, known = len(problems), fields_of(cls)
    for key in values:
        if key not in known:
            try:
                refuse_unknown(cls, {key: None}, "the file")
            except ConfigError as error:
                problems.append(Problem((*path, key), str(error.fields["problem"])))
    values = {key: value for key, value in values.items() if key in known}  # the others may be wrong beside these
    try:
        refuse_unknown(cls, values, "the file")
        made = cls(**values)
        return made if len(problems) == before else None
    except ConfigError as error:
        key = str(error.fields["key"]).strip("'")
        problems.append(Problem((*path, *key.split(".")), str(error.fields["problem"])))
    except ValidationError as error:
        for one in error.errors():
            where = tuple(str(part) for part in one["loc"])
            problem = one["msg"].removeprefix("Value error, ")
            problems.append(Problem((*path, *where), problem[:1].lower() + problem[1:]))
    return None


def _together(site: SiteFile) -> Iterator[Problem]:
    """What no table shows alone: machines that nobody knows, ports that two roles want, files that are not there."""
    ports: dict[tuple[str | None, int], str] = {}
    if site.site.machine is not None and site.site.machine not in site.machines:
        yield Problem(("site", "machine"), _no_machine(site.site.machine, site))
    for name, role in site.roles.items():
        path = tuple(name.split("."))
        machine = site.machine_of(name)
        own = getattr(role, "machine", None)
        if own is not None and own not in site.machines:
            yield Problem((*path, "machine"), _no_machine(own, site))
        if machine is None and site.machines:
            yield Problem(path, "it needs `machine`, or [site] does: the file is for several machines")
        for key in ("port", "mqtt_port", "metrics_port"):
            port = getattr(role, key, None)
            if port and (other := ports.setdefault((machine, port), name)) != name:
                yield Problem((*path, key), f"port {port} is used by {other} already")
        if isinstance(role, config.NatsRole) and role.url is None:
            if not (is_loopback(role.host) or role.token_file or role.insecure):
                yield Problem(
                    (*path, "host"),
                    "everyone who reaches that address could use it: set token_file, or insecure = true",
                )
            if (role.tls_certificate is None) != (role.tls_key is None):
                yield Problem((*path, "tls_certificate"), "tls_certificate and tls_key belong together")
        if isinstance(role, config.ControlRole) and role.port == 0:
            yield Problem((*path, "port"), "others must find it: name a port")
        if isinstance(role, config.PipelineRole):
            yield from _manifest(site, path, role)
        if isinstance(role, config.StationRole):
            yield from _station(site, path, role)
        for after in getattr(role, "after", ()):
            if after not in site.roles and after != "nats":
                yield Problem((*path, "after"), f"there is no role {after!r}")


def _station(site: SiteFile, path: Path_, role: config.StationRole) -> Iterator[Problem]:
    folder = site.base / role.dir
    # A file for several machines is read on each of them: there the folder need be only where the role runs.
    if not (folder / "config" / "config.json").is_file() and site.machine_of(".".join(path)) is None:
        yield Problem((*path, "dir"), f"there is no station in {folder}; make one with `fieldstation station new`")


def _manifest(site: SiteFile, path: Path_, role: config.PipelineRole) -> Iterator[Problem]:
    manifest = site.base / role.manifest
    if not manifest.is_file() and site.machine_of(".".join(path)) is None:
        yield Problem((*path, "manifest"), f"there is no file {manifest}")


def _no_machine(name: str, site: SiteFile) -> str:
    known = ", ".join(sorted(site.machines)) or "none; give it an address under [machines]"
    return f"there is no machine {name!r}; [machines] names {known}"


def _shown(path: Path_) -> str:
    if not path:
        return "the file"
    for length in range(len(path), 0, -1):
        table = path[:length]
        if table in SINGLE or table in PLAIN or table == MACHINES or table[:-1] in NAMED:
            return f"[{'.'.join(table)}]" + (f" {'.'.join(path[length:])}" if path[length:] else "")
    return f"[{'.'.join(path)}]"
