"""Look at this machine, and say of each thing in one line how it is and what to do about it."""

from __future__ import annotations

import ctypes
import grp
import importlib.util
import os
import shutil
import socket
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fieldstation.core.errors import FieldstationError
from fieldstation.site import config
from fieldstation.site.file import SiteFile, kind_of, read
from fieldstation.site.plan import roles, this_machine, with_defaults

FINE, NOTE, WRONG = "ok", "note", "wrong"

# Extra -> packages that only it brings, as they are imported.
EXTRAS = {
    "fleet": ("fastapi", "socketio", "sqlalchemy", "aiohttp"),
    "serial": ("serial",),
    "usb": ("serial", "pyudev"),
    "station": ("nats", "tuf", "pydantic"),
    "stream": ("grpc", "numpy", "pandas"),
    "plots": ("matplotlib",),
    "pipeline": ("nats", "yaml", "google.protobuf"),
    "parquet": ("pyarrow",),
    "flow": ("prefect", "slack_sdk"),
    "web": ("nicegui",),
}
NEEDED = {  # table of a role -> its extra
    "nats": "pipeline",
    "fleet.control": "fleet",
    "fleet.worker": "fleet",
    "station": "station",
    "stream": "stream",
    "pipeline": "pipeline",
}
LEAST_FREE = 1_000_000_000
BUILT = 1_735_689_600  # no clock that is right shows a time before this version was written
REACH_S = 3.0
_STA_UNSYNC = 0x40


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `level` is ok, note (worth knowing) or wrong; `mend` says what to do."""

    what: str
    level: str
    text: str
    mend: str = ""


def examine(path: Path | None, machine: str | None = None) -> Iterator[Finding]:
    """Yield what there is to say of this machine, and of its roles in the site file `path` when there is one."""
    yield _python()
    site, problem = None, None
    if path is not None:
        try:
            site = with_defaults(read(path))
            here = this_machine(site, machine)
        except FieldstationError as error:
            site, problem = None, Finding("site file", WRONG, str(error).replace("\n", "; "), "mend it, and look again")
    mine = [name for name in site.roles if site.machine_of(name) == here] if site is not None else []
    yield from _extras({NEEDED[kind_of(name)] for name in mine if kind_of(name) in NEEDED})
    yield _clock()
    yield _serial(any(kind_of(name) == "fleet.worker" and not _is_simulated(site, name) for name in mine))
    if problem is not None:
        yield problem
    if site is None:
        yield _disk(Path.cwd())
        return
    yield Finding("site file", FINE, f"{site.path}: {', '.join(mine) or 'no role'} on this machine")
    yield _folder(site.folder)
    yield _disk(site.folder)
    for name in mine:
        yield from _role(site, name, here)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", FINE, f"{version} in {sys.prefix}")


def _extras(needed: set[str]) -> Iterator[Finding]:
    there: list[str] = []
    missing: list[str] = []
    for extra, packages in EXTRAS.items():
        (there if all(map(_is_installed, packages)) else missing).append(extra)
    yield Finding("extras", FINE, f"installed: {', '.join(there) or 'none'}")
    for extra in missing:
        level = WRONG if extra in needed else NOTE
        why = "needed by a role here" if extra in needed else "not installed; fine when nothing here uses it"
        yield Finding(f"extra {extra}", level, why, f"pip install 'fieldstation[{extra}]'")


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ImportError:
        return False


def _clock() -> Finding:
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    if time.time() < BUILT:
        return Finding("clock", WRONG, f"it shows {now}", "set it; a computer without a clock chip needs NTP")
    if _is_synchronised() is False:
        return Finding("clock", NOTE, f"{now}, not synchronised", "switch NTP on: timedatectl set-ntp true")
    return Finding("clock", FINE, now)


def _is_synchronised() -> bool | None:
    # adjtimex(2) with no modes only reads; the third word of the structure that counts here is the status.
    try:
        buffer = (ctypes.c_long * 64)()
        ctypes.CDLL(None).adjtimex(ctypes.byref(buffer))
    except (OSError, AttributeError):
        return None
    status = ctypes.cast(ctypes.byref(buffer, 5 * ctypes.sizeof(ctypes.c_long)), ctypes.POINTER(ctypes.c_int))[0]
    return not status & _STA_UNSYNC


def _serial(needed: bool) -> Finding:
    ports = sorted([*Path("/dev").glob("ttyACM*"), *Path("/dev").glob("ttyUSB*")])
    closed = [port for port in ports if not os.access(port, os.R_OK | os.W_OK)]
    if closed:
        group = _group(closed[0])
        return Finding(
            "serial ports", WRONG if needed else NOTE, f"{closed[0]} belongs to the group {group}, and you do not",
            f"sudo usermod -aG {group} $USER, then log in again",
        )  # fmt: skip
    if needed and not Path("/run/udev/control").exists():
        return Finding("serial ports", WRONG, "udev does not run, so plugged boards are not seen", "start udev")
    return Finding("serial ports", FINE, ", ".join(map(str, ports)) or "none is plugged in")


def _group(port: Path) -> str:
    try:
        return grp.getgrgid(port.stat().st_gid).gr_name
    except (KeyError, OSError):
        return "dialout"


def _folder(folder: Path) -> Finding:
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if not os.access(place, os.W_OK | os.X_OK):
        return Finding("files", WRONG, f"{place} is not writable for you", f"sudo chown $USER {place}")
    return Finding("files", FINE, f"{folder} is writable")


def _disk(folder: Path) -> Finding:
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    text = f"{free / 1e9:.1f} GB free at {place}"
    if free < LEAST_FREE:
        return Finding("disk", WRONG, text, "make room: below 1 GB stores and logs fill it soon")
    return Finding("disk", FINE, text)


def _is_simulated(site: SiteFile | None, name: str) -> bool:
    role = site.roles[name] if site is not None else None
    return isinstance(role, config.WorkerRole) and (role.simulate is not None or "pico2_ice" not in role.driver)


def _role(site: SiteFile, name: str, machine: str | None) -> Iterator[Finding]:
    role = site.roles[name]
    if isinstance(role, config.NatsRole) and role.url is not None:
        yield _reach(name, role.url, 4222)
    elif not isinstance(role, config.NatsRole | config.ProgramRole):
        pass
    else:
        try:
            roles(site, machine=machine, only=[name])
        except FieldstationError as error:
            yield Finding(name, WRONG, str(error))
    if not (isinstance(role, config.NatsRole) and role.url is not None):
        yield from _ports(site, name)
    if isinstance(role, config.ControlRole):
        yield _database(site, role)
    if isinstance(role, config.WorkerRole) and "fleet.control" not in site.roles:
        for url in role.control:
            yield _reach(f"{name}: control", url, 8080)
    if isinstance(role, config.StationRole):
        folder = site.base / role.dir
        if not (folder / "config" / "config.json").is_file():
            yield Finding(name, WRONG, f"there is no station in {folder}", f"fieldstation station new {folder}")
        else:
            yield Finding(name, *_writable(folder))
    if isinstance(role, config.PipelineRole) and not (site.base / role.manifest).is_file():
        yield Finding(name, WRONG, f"there is no file {site.base / role.manifest}", "write it; see tutorials/pipeline")


def _writable(folder: Path) -> tuple[str, str, str]:
    if os.access(folder, os.W_OK | os.X_OK):
        return FINE, f"{folder} is writable", ""
    return WRONG, f"{folder} is not writable for you", f"sudo chown -R $USER {folder}"


def _ports(site: SiteFile, name: str) -> Iterator[Finding]:
    from fieldstation.site.supervise import read_status

    role = site.roles[name]
    host = str(getattr(role, "host", "127.0.0.1"))
    status = read_status(site.folder).get(name, {})
    for key in ("port", "mqtt_port", "metrics_port"):
        port = getattr(role, key, None)
        if not port:
            continue
        if status.get("state") == "running" and _is_alive(int(str(status.get("pid") or 0))):
            yield Finding(name, FINE, f"it runs, and has {host}:{port}")
        elif (problem := _taken(host, port)) is not None:
            yield Finding(name, WRONG, f"{host}:{port}: {problem}", f"stop what listens there, or set [{name}] {key}")
        else:
            yield Finding(name, FINE, f"{host}:{port} is free")


def _is_alive(pid: int) -> bool:
    return pid > 0 and Path(f"/proc/{pid}").exists()


def _taken(host: str, port: int) -> str | None:
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host.strip("[]"), port))
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return None


def _database(site: SiteFile, role: config.ControlRole) -> Finding:
    given = "database" in role.model_fields_set
    address = role.database if given else f"sqlite:///{site.folder / 'fleet.db'}"
    if address.startswith("sqlite"):
        path = Path(address.partition(":///")[2])
        if not path.exists():
            return Finding("database", FINE, f"{path} is made at the first start")
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=2)) as connection:
                connection.execute("PRAGMA schema_version").fetchone()
        except sqlite3.Error as error:
            return Finding("database", WRONG, f"{path}: {error}", "restore it from a copy, or move it away")
        return Finding("database", FINE, str(path))
    if "://" in address:
        return _reach("database", address, 5432)
    words = dict(word.partition("=")[::2] for word in address.split())
    return _reach("database", f"postgresql://{words.get('host', '127.0.0.1')}:{words.get('port', '5432')}", 5432)


def _reach(what: str, url: str, default: int) -> Finding:
    parts = urlsplit(url if "://" in url else f"//{url}")
    host, port = parts.hostname or "127.0.0.1", parts.port or default
    try:
        socket.create_connection((host, port), REACH_S).close()
    except OSError as error:
        problem = (error.strerror or str(error)).lower()
        return Finding(what, WRONG, f"{host}:{port} does not answer: {problem}", "start it, or look at the network")
    return Finding(what, FINE, f"{host}:{port} answers")
