"""Releases are checked with python-tuf against the root key that was pinned when the station was made.

Roots rotate by chains of signatures, expired metadata and older versions of it are refused, and a release is only
taken with the length and hash its signed metadata name. See https://theupdateframework.github.io/specification/latest/.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

from fieldstation.core.plugins import require
from fieldstation.station.config import UpdaterConfig
from fieldstation.station.errors import UnsafeReleaseError, UpdateError
from fieldstation.station.place import Place
from fieldstation.station.updates import sources
from fieldstation.station.version import Version

UNSIGNED = "FIELDSTATION_STATION_UNSIGNED_UPDATES"  # set to `allow` in config/.env, which no pushed config can change


def fetch_release(place: Place, updater: UpdaterConfig, version: Version, folder: Path) -> Path:
    """Download a release into `folder` and return its path, once it is proved to be what its makers signed."""
    from fieldstation.station.updates.fetch import download

    root = place.project_dir / "config" / "trust" / "root.json"
    if root.is_file():
        return _signed(place, updater, version, folder, root)
    if os.environ.get(UNSIGNED) == "allow":
        path = folder / sources.target_name(place.name, version)
        download(sources.unsigned_archive(updater, version, place.name), path)
        return path
    raise UnsafeReleaseError(
        problem=f"this station has no pinned root key (config/trust/root.json), and unsigned sources are not allowed "
        f"({UNSIGNED}=allow in config/.env allows them)"
    )


def _signed(place: Place, updater: UpdaterConfig, version: Version, folder: Path, root: Path) -> Path:
    from fieldstation.station.updates.assets import Assets
    from fieldstation.station.updates.fetch import DEADLINE_S, MAX_BYTES, stream

    ngclient = require("tuf.ngclient", extra="station", feature="Checking signed releases")
    exceptions = require("tuf.api.exceptions", extra="station", feature="Checking signed releases")
    assets = Assets(updater)

    class Fetcher(ngclient.FetcherInterface):  # type: ignore[misc,name-defined]  # its base is imported late, it is heavy
        def _fetch(self, url: str) -> Iterator[bytes]:
            try:
                chunks = stream(assets.request_for(url), max_bytes=MAX_BYTES, deadline_s=DEADLINE_S)
                opened.append(chunks)
                first = next(chunks, b"")
            except UpdateError as error:
                # How TUF learns that there is no newer root: any failure to get one counts.
                raise exceptions.DownloadHTTPError(str(error), 404) from error
            return itertools.chain([first] if first else [], chunks)

    opened: list[Generator[bytes, None, None]] = []
    metadata = place.data_dir / "trust"
    metadata.mkdir(parents=True, exist_ok=True)
    try:
        client = ngclient.Updater(
            metadata_dir=str(metadata),
            metadata_base_url=sources.metadata_base(updater),
            target_dir=str(folder),
            target_base_url=sources.target_base(updater, version),
            fetcher=Fetcher(),
            # GitHub and GitLab keep assets flat under their own names.
            config=ngclient.UpdaterConfig(prefix_targets_with_hash=False),
            bootstrap=root.read_bytes(),
        )
        client.refresh()
        name = sources.target_name(place.name, version)
        info = client.get_targetinfo(name)
        if info is None:
            raise UnsafeReleaseError(problem=f"the signed metadata know no release {name}")
        return Path(client.download_target(info, str(folder / name)))
    except (exceptions.RepositoryError, exceptions.DownloadError) as error:
        raise UnsafeReleaseError(problem=f"{_sentence(error)} ({type(error).__name__})") from error
    except ValueError as error:
        raise UnsafeReleaseError(problem=str(error)) from error
    finally:
        for chunks in opened:
            chunks.close()  # TUF walks away from a download that is too long


def _sentence(error: BaseException) -> str:
    cause = error.__cause__
    return f"{error}: {cause}" if cause is not None and not str(error) else str(error)


def carry_trust(old: Path, new: Path) -> None:
    """Give a new version the settings of this machine: trust, certificates, .env. What it brings itself is replaced
    where trust is meant, and kept otherwise."""
    for source in sorted((old / "config").rglob("*")):
        relative = source.relative_to(old)
        target = new / relative
        own = relative.parts[1] in ("trust", ".env")
        if source.is_dir() or relative.name in ("config.json", "config.template.json") or (target.exists() and not own):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
    if not (old / "config" / "trust").exists():
        shutil.rmtree(new / "config" / "trust", ignore_errors=True)
