"""Unpack a release without letting it write anywhere else."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

from fieldstation.core.files import sync
from fieldstation.station.errors import UnsafeReleaseError

MAX_MEMBERS = 100_000
MAX_TOTAL = 2_000_000_000


def unpack(archive: Path, target: Path) -> None:
    """Unpack `archive`, which holds one folder, so that the folder becomes `target`: whole, or not at all."""
    beside = target.with_name(f".{target.name}.unpacking")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        with tarfile.open(archive) as tar:
            members = _checked(tar)
            tar.extractall(beside, members=members, filter="data")
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise UnsafeReleaseError(problem=f"the archive cannot be unpacked: {error}") from error
    except UnsafeReleaseError:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    (top,) = beside.iterdir()
    if target.exists():
        aside = target.with_name(f".{target.name}.replaced")
        shutil.rmtree(aside, ignore_errors=True)
        target.rename(aside)
        top.rename(target)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        top.rename(target)
    sync(target.parent)
    shutil.rmtree(beside, ignore_errors=True)


def _checked(tar: tarfile.TarFile) -> list[tarfile.TarInfo]:
    members: list[tarfile.TarInfo] = []
    total = 0
    tops = set()
    for member in tar:
        if member.type in (tarfile.XGLTYPE, tarfile.XHDTYPE):
            continue
        parts = Path(member.name).parts
        if member.name.startswith("/") or ".." in parts or not parts:
            raise UnsafeReleaseError(problem=f"the archive wants to write to {member.name!r}")
        members.append(member)
        total += member.size
        tops.add(parts[0])
        if len(members) > MAX_MEMBERS or total > MAX_TOTAL:
            raise UnsafeReleaseError(problem="the archive is absurdly large")
    if len(tops) != 1:
        raise UnsafeReleaseError(problem="the archive does not hold one single folder")
    return members
