"""From a site file to a running site."""

from __future__ import annotations

import os
import sys
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
    told = Announcement(site, control_url(with_defaults(file), this_machine(file, machine)) or file.site.name)
    await service.run([site, told], stop_deadline_s=site.stop_s)


class Announcement:
    """Prints the ready line once every role is ready."""

    name = "ready"

    def __init__(self, site: Supervisor, url: str) -> None:
        self._site = site
        self._url = url

    async def start(self) -> None:
        """Nothing to start."""

    async def run(self) -> None:
        """Wait, tell, and be done."""
        await self._site.until_ready()
        sys.stdout.write(f"ready {self._url}\n")
        sys.stdout.flush()

    async def stop(self) -> None:
        """Nothing to stop."""

    def health(self) -> dict[str, object]:
        """Always well."""
        return {"ok": True}
