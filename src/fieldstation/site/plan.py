"""From a site file to the roles of one machine: which programs run, how they find each other. Nothing is started."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fieldstation.core.errors import ConfigError
from fieldstation.core.security import own_token
from fieldstation.pipeline.names import product_of
from fieldstation.site import config
from fieldstation.site.broker import server_settings
from fieldstation.site.errors import NothingToRunError, UnknownMachineError, UnknownRoleError
from fieldstation.site.file import SiteFile
from fieldstation.site.model import Role

OURS = (sys.executable, "-m", "fieldstation")
STATION_STOP_S = 60.0  # its procedures tear down; what the uplinks may take to drain comes on top


def this_machine(site: SiteFile, name: str | None) -> str | None:
    """Return which of the file's machines this is: the one named, else this computer's name; None when it has none."""
    if not site.machines:
        return None
    found = name or socket.gethostname()
    if found not in site.machines:
        raise UnknownMachineError(name=found, known=", ".join(sorted(site.machines)))
    return found


def roles(site: SiteFile, *, machine: str | None = None, only: Sequence[str] = ()) -> list[Role]:
    """Return the roles of `machine` (see `this_machine`), those of `only` when it names some: `fleet.worker` means
    every worker."""
    everywhere = with_defaults(site)
    for wanted in only:
        if not any(_is_in(name, wanted) for name in everywhere.roles):
            raise UnknownRoleError(name=wanted, roles=", ".join(everywhere.roles))
    here = [name for name in everywhere.roles if everywhere.machine_of(name) == machine]
    chosen = [name for name in here if not only or any(_is_in(name, wanted) for wanted in only)]
    planned = [role for name in chosen for role in _plan(everywhere, name, machine)]
    if not planned:
        within = f" with the names {', '.join(only)}" if only else ""
        raise NothingToRunError(machine=machine or "here", only=within, roles=", ".join(everywhere.roles))
    return planned


def with_defaults(site: SiteFile) -> SiteFile:
    """Return the site with the message server that its pipelines and stations need, when it names none."""
    needs = next((name for name in site.roles if name.startswith(("pipeline.", "station."))), None)
    if "nats" in site.roles or needs is None:
        return site
    role = config.NatsRole.model_validate({"machine": site.machine_of(needs)})
    return SiteFile(
        site.path,
        site.site,
        site.machines,
        {"nats": role, **site.roles},
        {"nats": {}, **site.given},
        site.approvals,
        site.panel,
    )


def _is_in(name: str, wanted: str) -> bool:
    return name == wanted or name.startswith(f"{wanted}.")


def _plan(site: SiteFile, name: str, machine: str | None) -> Iterator[Role]:
    role = site.roles[name]
    short = name.rpartition(".")[2]
    if isinstance(role, config.NatsRole):
        if role.url is None:
            yield _nats(site, role)
    elif isinstance(role, config.ControlRole):
        yield _control(site, role, machine)
    elif isinstance(role, config.WorkerRole):
        yield _worker(site, name, short, role, machine)
    elif isinstance(role, config.StationRole):
        folder = site.base / role.dir
        yield _ours(
            site, name, machine, ["station", "run", str(folder)], after=["nats"], stop_s=STATION_STOP_S,
            drains_s=_drain_s(folder / "config" / "config.json"),
        )  # fmt: skip
    elif isinstance(role, config.StreamRole):
        file, text = _settings(site, name, {"stream": _without(site.given[name], "machine", "after", "tls_ca")})
        command = ["stream", "serve", "--config", str(file)]
        yield _ours(site, name, machine, command, files={file: text})
    elif isinstance(role, config.PipelineRole):
        yield _pipeline(site, name, role, machine)
    elif isinstance(role, config.FlowWorkerRole):
        command = [
            "flow",
            "worker",
            "--pool",
            short,
            "--every",
            f"{role.every_s:g}",
            "--state-dir",
            str(_state(site, name)),
        ]
        allowed = [part for pattern in role.allow for part in ("--allow", pattern)]
        yield _ours(site, name, machine, [*command, *allowed])
    elif isinstance(role, config.ProgramRole):
        yield _program(site, name, role, machine)


def _nats(site: SiteFile, role: config.NatsRole) -> Role:
    from fieldstation.pipeline.broker import find_binary

    folder = site.folder / "nats"
    file = folder / "nats.conf"
    token = own_token(site.base / role.token_file) if role.token_file is not None else None
    text = server_settings(role, site.site.name, folder / "store", token)
    here = site.machine_of("nats")
    return Role(
        "nats", (find_binary(), "-c", str(file)), site.base, says_ready=False, port=role.port,
        host=_host(site, "nats", here), url=nats_url(site, here) or "", files={file: text},
        environment=site.site.environment,
    )  # fmt: skip


def _control(site: SiteFile, role: config.ControlRole, machine: str | None) -> Role:
    values = {
        "database": f"sqlite:///{site.folder / 'fleet.db'}",
        **_without(site.given["fleet.control"], "machine", "url"),
    }
    tables = {"fleet": {"control": values}, "flow": {"approvals": dict(site.approvals)}, "web": _panel(site, machine)}
    file, text = _settings(site, "fleet.control", tables)
    command = ["fleet", "control", "--config", str(file)]
    return _ours(site, "fleet.control", machine, command, after=[], files={file: text})


def _panel(site: SiteFile, machine: str | None) -> dict[str, Any]:
    """What the panel shows beside the control's own: everything that the site has, unless [web] says another."""
    found: dict[str, Any] = {"title": site.site.name}
    if url := nats_url(site, machine):
        found["nats"] = url
    nats = site.roles.get("nats")
    if isinstance(nats, config.NatsRole) and nats.token_file is not None:
        found["nats_token_file"] = str(nats.token_file)
    ca = str(site.base / nats.tls_ca) if isinstance(nats, config.NatsRole) and nats.tls_ca is not None else ""
    if ca:
        found["nats_ca"] = ca
    found["streams"] = streams(site, machine)
    if trusted := stream_ca(site):
        found["stream_ca"] = trusted
    found["pipelines"] = {
        name.partition(".")[2]: {
            "manifest": str(site.base / role.manifest),
            "product": _product(name),
            "nats": nats_url(site, machine),
            "ca": ca,
            "state": str(_state(site, name)),
        }
        for name, role in site.roles.items()
        if isinstance(role, config.PipelineRole)
    }
    return {**found, **site.panel}


def _worker(site: SiteFile, name: str, short: str, role: config.WorkerRole, machine: str | None) -> Role:
    values = _without(site.given[name], "machine", "after", "simulate", "twin", "serials")
    values = {"name": short, "dir": str(_state(site, name)), **values}
    if url := control_url(site, machine):
        values.setdefault("control", [url])
    if role.simulate is not None or role.serials or role.twin:
        boards = dict(role.settings.get("simulated", {}))
        boards |= {"boards": role.simulate} if role.simulate is not None else {}
        boards |= {"serials": list(role.serials)} if role.serials else {}
        boards |= {"answers": "twin"} if role.twin else {}
        given = role.driver if "driver" in role.model_fields_set else ()
        values["driver"] = list(dict.fromkeys([*given, "simulated"]))
        values["settings"] = {**role.settings, "simulated": boards}
    file, text = _settings(site, name, {"fleet": {"worker": values}})
    return _ours(site, name, machine, ["fleet", "worker", "--config", str(file)], files={file: text})


def _pipeline(site: SiteFile, name: str, role: config.PipelineRole, machine: str | None) -> Role:
    command = ["pipeline", "up", str(site.base / role.manifest), "--product", _product(name)]
    command += ["--state", str(_state(site, name)), "--nats", nats_url(site, machine) or ""]
    command += ["--ack-wait", f"{role.ack_wait_s:g}"]
    nats = site.roles.get("nats")
    if isinstance(nats, config.NatsRole) and nats.tls_ca is not None:
        command += ["--ca", str(site.base / nats.tls_ca)]
    for process, program in role.run.items():
        command += ["--run", f"{process}={program}"]
    return _ours(site, name, machine, command, after=["nats", "fleet.control"])


def _program(site: SiteFile, name: str, role: config.ProgramRole, machine: str | None) -> Role:
    command = role.command
    if command[0] == "fieldstation":
        command = (*OURS, *command[1:])
    return Role(
        name, command, (site.base / role.dir).resolve(), after=role.after, says_ready=role.says_ready,
        stop_s=role.stop_s, environment=environment(site, machine),
    )  # fmt: skip


def _ours(
    site: SiteFile,
    name: str,
    machine: str | None,
    command: Sequence[str],
    *,
    after: Sequence[str] = ("fleet.control",),
    stop_s: float = 8.0,
    drains_s: float = 0.0,
    files: Mapping[Path, str] | None = None,
) -> Role:
    after = (*after, *getattr(site.roles[name], "after", ()))
    return Role(
        name, (*OURS, *command), site.base, after=after, stop_s=stop_s, drains_s=drains_s,
        environment=environment(site, machine), files=files or {},
    )  # fmt: skip


def environment(site: SiteFile, machine: str | None) -> dict[str, str]:
    """Return how a role on `machine` finds the others: FIELDSTATION_CONTROL, FIELDSTATION_NATS_URL, and
    FIELDSTATION_SITE_STREAMS with `name=host:port` for each frame server (over TLS: FIELDSTATION_SITE_STREAM_CA)."""
    found = dict(site.site.environment)
    if url := control_url(site, machine):
        found.setdefault("FIELDSTATION_CONTROL", url)
    if url := nats_url(site, machine):
        found.setdefault("FIELDSTATION_NATS_URL", url)
    role = site.roles.get("nats")
    if isinstance(role, config.NatsRole) and role.token_file is not None:
        token = own_token(site.base / role.token_file)
        found.setdefault("KAI_NATS_TOKEN", token or "")
    if ca := stream_ca(site):
        found.setdefault("FIELDSTATION_SITE_STREAM_CA", ca)
    if named := streams(site, machine):
        found.setdefault("FIELDSTATION_SITE_STREAMS", ",".join(f"{name}={where}" for name, where in named.items()))
    return found


def streams(site: SiteFile, machine: str | None) -> dict[str, str]:
    """Return frame server -> `host:port` as a role on `machine` reaches it."""
    return {
        name.partition(".")[2]: f"{_host(site, name, machine)}:{role.port}"
        for name, role in site.roles.items()
        if isinstance(role, config.StreamRole)
    }


def stream_ca(site: SiteFile) -> str | None:
    """Return the authority of the frame servers' certificates, one for all; None when they speak without TLS."""
    named = [role.tls_ca for role in site.roles.values() if isinstance(role, config.StreamRole) and role.tls_ca]
    return str(site.base / named[0]) if named else None


def listens(site: SiteFile, name: str) -> list[str]:
    """Return `host:port what` for each port that a role opens; stations and nodes take free loopback ports beside."""
    role = site.roles[name]
    host = getattr(role, "host", "127.0.0.1")
    if isinstance(role, config.NatsRole):
        if role.url is not None:
            return []
        return [f"{host}:{role.port} NATS", *([f"{host}:{role.mqtt_port} MQTT"] if role.mqtt_port else [])]
    if isinstance(role, config.ControlRole | config.WorkerRole):
        return [f"{host}:{role.port} {'HTTPS' if role.tls_certificate else 'HTTP'}"]
    if isinstance(role, config.StreamRole):
        metrics = [f"127.0.0.1:{role.metrics_port} HTTP"] if role.metrics_port is not None else []
        return [f"{host}:{role.port} gRPC", *metrics]
    return []


def control_url(site: SiteFile, machine: str | None) -> str | None:
    """Return where a role on `machine` reaches the control server; None when the site has none."""
    role = site.roles.get("fleet.control")
    if not isinstance(role, config.ControlRole):
        return None
    scheme = "https" if role.tls_certificate is not None else "http"
    return role.url or f"{scheme}://{_host(site, 'fleet.control', machine)}:{role.port}"


def nats_url(site: SiteFile, machine: str | None) -> str | None:
    """Return where a role on `machine` reaches the message server."""
    role = site.roles.get("nats")
    if not isinstance(role, config.NatsRole):
        return None
    scheme = "tls" if role.tls_certificate is not None else "nats"
    return role.url or f"{scheme}://{_host(site, 'nats', machine)}:{role.port}"


def _host(site: SiteFile, name: str, machine: str | None) -> str:
    there = site.machine_of(name)
    if there != machine and there is not None:
        return site.machines[there]
    host = str(getattr(site.roles[name], "host", "127.0.0.1"))
    return "127.0.0.1" if host in ("", "0.0.0.0", "::", "localhost") else host  # noqa: S104 - compared, not bound


def _state(site: SiteFile, name: str) -> Path:
    return site.folder / Path(*name.split("."))


def _settings(site: SiteFile, name: str, tables: Mapping[str, Any]) -> tuple[Path, str]:
    from fieldstation.site.toml import text_of

    return site.folder / "roles" / f"{name}.toml", text_of(tables)


def _product(name: str) -> str:
    return product_of(name.partition(".")[2], Path())


def _without(values: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}


def _drain_s(file: Path) -> float:
    try:
        found = json.loads(file.read_text())
        uplinks = [found.get("backend"), *(found.get("uplinks") or {}).values()]
        return max([float(uplink.get("max_drain_time", 600)) for uplink in uplinks if uplink], default=0.0)
    except OSError as error:
        raise ConfigError(f"The station's config {file} cannot be read: {error.strerror}.") from error
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"The station's config {file} is not usable: {error}.") from error
