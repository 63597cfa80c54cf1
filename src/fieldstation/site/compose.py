"""From a site file to a running site."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fieldstation.core import service
from fieldstation.site.file import read
from fieldstation.site.plan import control_url, roles, this_machine, with_defaults
from fieldstation.site.supervise import Supervisor


def supervisor(path: Path, *, machine: str | None = None, only: Sequence[str] = ()) -> Supervisor:
    """Return the supervisor of this machine's roles of a site file, ready to be started."""
    site = read(path)
    here = this_machine(site, machine)
    planned = roles(site, machine=here, only=only)
    as_json = os.environ.get("FIELDSTATION_LOG_JSON", "") not in ("", "0")
    return Supervisor(site.site.name, planned, site.folder, as_json=as_json)


async def up(path: Path, *, machine: str | None = None, only: Sequence[str] = ()) -> None:
    """The life of `fieldstation up`: start, print `ready <control>` once every role is, work, stop on SIGTERM."""
    site = supervisor(path, machine=machine, only=only)
    file = read(path)
    url = control_url(with_defaults(file), this_machine(file, machine)) or file.site.name
    await service.run([site, service.Announcement(site.until_ready, lambda: url)], stop_deadline_s=site.stop_s)
