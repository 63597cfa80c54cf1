"""A site for other supervisors: systemd units, a container file, a compose file. Text only; nothing is installed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from fieldstation import __version__
from fieldstation.site.file import SiteFile, kind_of
from fieldstation.site.model import Role
from fieldstation.site.plan import OURS, roles

INSIDE = PurePosixPath("/site")
STOP_MARGIN_S = 5.0

# What a role's program needs inside a container.
_EXTRAS = {
    "nats": "pipeline",
    "fleet.control": "fleet,flow,web",
    "fleet.worker": "fleet,usb",
    "station": "station",
    "stream": "stream",
    "pipeline": "pipeline,stream,station,fleet",
    "flow.worker": "flow",
    "program": "all",
}


def export(site: SiteFile, machine: str | None, forms: Sequence[str], *, each: bool = False) -> dict[str, str]:
    """Return file name -> text of the asked forms, for the roles of one machine. `each`: one unit for every role."""
    planned = roles(site, machine=machine)
    found: dict[str, str] = {}
    if "systemd" in forms:
        found |= _units(site, machine, planned, each)
    if "container" in forms:
        found["Containerfile"] = _container(planned)
    if "compose" in forms:
        found["compose.yaml"] = _compose(site, machine, planned)
    return found


def _command(site: SiteFile, machine: str | None, path: str, *only: str) -> list[str]:
    words = ["up", path, *(["--machine", machine] if machine is not None else [])]
    return [*words, *(part for name in only for part in ("--only", name))]


def _units(site: SiteFile, machine: str | None, planned: Sequence[Role], each: bool) -> dict[str, str]:
    name = f"fieldstation-{site.site.name}"
    if not each:
        stop_s = max(role.stop_s + role.drains_s for role in planned)
        return {f"{name}.service": _unit(site, machine, f"Fieldstation site {site.site.name}", stop_s, ())}
    units = {}
    for role in planned:
        after = [_unit_name(name, other.name) for other in planned if other.name in role.after]
        title = f"Fieldstation site {site.site.name}: {role.name}"
        units[_unit_name(name, role.name)] = _unit(site, machine, title, role.stop_s + role.drains_s, after, role.name)
    wanted = " ".join(units)
    head = f"[Unit]\nDescription=Fieldstation site {site.site.name}\nWants={wanted}\n"
    units[f"{name}.target"] = f"{head}\n[Install]\nWantedBy=multi-user.target\n"
    return units


def _unit_name(name: str, role: str) -> str:
    return f"{name}-{role.replace('.', '-')}.service"


def _unit(
    site: SiteFile, machine: str | None, title: str, stop_s: float, after: Sequence[str], role: str | None = None
) -> str:
    command = [*OURS, *_command(site, machine, str(site.path), *([role] if role else []))]
    target = "multi-user.target" if role is None else f"fieldstation-{site.site.name}.target"
    return "\n".join(
        [
            "[Unit]",
            f"Description={title}",
            f"After={' '.join(['network-online.target', 'time-sync.target', *after])}",
            "Wants=network-online.target",
            "",
            "[Service]",
            "Type=exec",
            "# The user that owns the site's folder; a worker with real boards needs the group dialout.",
            "User=fieldstation",
            f"WorkingDirectory={site.base}",
            f"ExecStart={' '.join(map(_quoted, command))}",
            "Restart=always",
            "RestartSec=5",
            "# Only the supervisor is asked to stop; it ends its roles in order.",
            "KillMode=mixed",
            f"TimeoutStopSec={stop_s + STOP_MARGIN_S:g}",
            "NoNewPrivileges=yes",
            "",
            "[Install]",
            f"WantedBy={target}",
            "",
        ]
    )


def _quoted(word: str) -> str:
    # systemd reads % as a specifier and $ as a variable, also inside quotes.
    word = word.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$")
    return '"' + word.replace('"', '\\"') + '"' if any(c in word for c in " \t\"'") else word


def _container(planned: Sequence[Role]) -> str:
    extras = sorted({extra for role in planned for extra in _EXTRAS[kind_of(role.name)].split(",")})
    wanted = "all" if "all" in extras else ",".join(extras)
    return "\n".join(
        [
            "# One image for every role of the site; which one runs is said by the command.",
            "FROM python:3.12-slim",
            "RUN useradd --create-home fieldstation",
            f'RUN pip install --no-cache-dir "fieldstation[{wanted}]=={__version__}"',
            "USER fieldstation",
            f"WORKDIR {INSIDE}",
            f"VOLUME {INSIDE}",
            "STOPSIGNAL SIGTERM",
            'ENTRYPOINT ["fieldstation"]',
            f"CMD {json.dumps(['up', str(INSIDE / 'site.toml')])}",
            "",
        ]
    )


def _compose(site: SiteFile, machine: str | None, planned: Sequence[Role]) -> str:
    """Write YAML by hand: JSON strings are YAML strings, and the base of this package has no YAML."""
    lines = [
        "# Roles find each other at 127.0.0.1 as on a machine without containers: they share its network.",
        f"name: {json.dumps(site.site.name)}",
        "services:",
    ]
    names = {role.name: role.name.replace(".", "-") for role in planned}
    for role in planned:
        command = _command(site, machine, str(INSIDE / site.path.name), role.name)
        lines += [
            f"  {names[role.name]}:",
            "    image: " + json.dumps(f"fieldstation:{__version__}"),
            "    build: {context: ., dockerfile: Containerfile}",
            f"    command: {json.dumps(command)}",
            "    network_mode: host",
            "    restart: always",
            "    init: true",
            f"    stop_grace_period: {json.dumps(f'{role.stop_s + role.drains_s + STOP_MARGIN_S:g}s')}",
            f"    volumes: [{json.dumps(f'{site.base}:{INSIDE}')}]",
        ]
        if after := [names[name] for name in role.after if name in names]:
            lines.append(f"    depends_on: {json.dumps(after)}")
    return "\n".join([*lines, ""])


def write(folder: Path, texts: dict[str, str]) -> list[Path]:
    """Write the files into `folder`; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text)
    return [folder / name for name in texts]
