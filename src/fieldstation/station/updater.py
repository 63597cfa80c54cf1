"""The documented `Updater`: fetch a version, give it an environment, test it, switch to it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from fieldstation.core.files import write_file
from fieldstation.station.config import Config, ForeignConfig, UpdaterConfig, as_data
from fieldstation.station.errors import UpdateError
from fieldstation.station.intake import hand_over
from fieldstation.station.place import current_place
from fieldstation.station.updates.pointer import point_to
from fieldstation.station.updates.trial import TrialFile
from fieldstation.station.version import Version, is_version

LOCAL_SOURCE = "update-source.json"


class Updater:
    """Each step can be done again after it was cut off at any point; the running version is not touched by any."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._place = current_place()

    def perform_update(self, foreign_config: ForeignConfig) -> None:
        """Hand a config to the running station, which answers it, tries it and keeps or rolls it back.

        Returns when it is on the disk. Without a running station it is taken up at the next start.
        """
        hand_over(foreign_config.model_dump(mode="json"))

    def prepare(self, foreign_config: ForeignConfig) -> None:
        """Do everything up to the switch; UpdateError says what is wrong with the version."""
        version = foreign_config.general.software_version
        self.download_source_code(version)
        self.install_dependencies(version)
        foreign_config.dump()
        self._share_data(version)
        self.run_pytests(version)

    def download_source_code(self, version: Version) -> None:
        """Fetch the version's release, check its signature, and unpack it to `<root>/<version>` in one step."""
        # Only the process that prepares a version needs these; the supervisor is to stay small.
        from fieldstation.station.updates.trust import carry_trust, fetch_release
        from fieldstation.station.updates.unpack import unpack

        updater = local_source(self._place.data_dir, version) or self._config.updater
        if updater is None:
            raise UpdateError(problem="the config has no section `updater`")
        directory = self._directory(version)
        if directory == self._place.project_dir:
            raise UpdateError(problem=f"version {version} is the one that runs")
        if directory.exists() and not directory.is_dir():
            raise UpdateError(problem=f"{directory} is a file")
        if not (directory.is_dir() and updater.source_conflict_strategy == "reuse"):
            self._place.root_dir.mkdir(parents=True, exist_ok=True)
            # On the same file system, so that the last step is one rename.
            with tempfile.TemporaryDirectory(prefix=".download-", dir=self._place.root_dir) as folder:
                unpack(fetch_release(self._place, updater, version, Path(folder)), directory)
        carry_trust(self._place.project_dir, directory)

    def install_dependencies(self, version: Version) -> None:
        """Build the version's `.venv` with uv; a `pdm.lock` is followed exactly, hashes included."""
        from fieldstation.station.updates import environment

        environment.build(self._directory(version))

    def run_pytests(self, version: Version) -> None:
        """Run the version's tests marked `version_change`; UpdateError with their output when they fail."""
        from fieldstation.station.updates import environment

        environment.run_tests(self._directory(version))

    def update_cli_pointer(self, version: Version) -> None:
        """Let `<root>/<name>-cli.sh` start this version from now on."""
        point_to(self._place, version)

    def remove_old_venvs(self) -> None:
        """Remove the environments that are not in use. The one to roll back to stays, and during a trial all do."""
        if TrialFile(self._place.data_dir).load() is not None or not self._place.root_dir.is_dir():
            return
        keep = {self._place.project_dir.resolve(), previous_version(self._place.data_dir)}
        for directory in self._place.root_dir.iterdir():
            if is_version(directory.name) and directory.resolve() not in keep:
                shutil.rmtree(directory / ".venv", ignore_errors=True)

    def _directory(self, version: Version) -> Path:
        return self._place.root_dir / version.as_identifier()

    def _share_data(self, version: Version) -> None:
        # Unsent messages, state and archive are then the new version's too, and the old one's again after a roll-back.
        if os.environ.get("IVY_DATA_DIR"):
            return
        link = self._directory(version) / "data"
        target = self._place.data_dir.resolve()
        if link.is_symlink() or not link.exists():
            beside = link.with_name(".data.new")
            beside.unlink(missing_ok=True)
            beside.symlink_to(target)
            beside.replace(link)
        elif link.resolve() != target:
            link.rename(link.with_name(f"data-of-the-release-{os.getpid()}"))
            self._share_data(version)


def request_version(config: Config, version: str, source: Path | None) -> ForeignConfig:
    """Return today's config for another version, one revision on; `source` is used for that version in place of what
    `updater` names (only a person at the station can ask for that)."""
    try:
        wanted = Version(version)
    except ValueError as error:
        raise UpdateError(problem=str(error)) from error
    place = current_place()
    local = place.data_dir / LOCAL_SOURCE
    local.unlink(missing_ok=True)
    if source is not None:
        write_file(local, json.dumps({"version": version, "folder": str(source.absolute())}))
    data = as_data(config)
    if data["updater"] is None and source is None:
        raise UpdateError(problem="the config has no section `updater`; name a folder with --from")
    data["general"] |= {"software_version": str(wanted), "config_revision": config.general.config_revision + 1}
    return ForeignConfig.model_validate(data)


def local_source(data_dir: Path, version: Version) -> UpdaterConfig | None:
    """Return the folder that a person named for this version, as a source."""
    try:
        named = json.loads((data_dir / LOCAL_SOURCE).read_text())
    except (OSError, ValueError):
        return None
    if named["version"] != str(version):
        return None
    folder = Path(named["folder"])
    # The characters of a path are not those of an address, which the config's door checks; this came from a person.
    return UpdaterConfig.model_construct(
        repository=folder.name, provider="folder", provider_host=str(folder.parent), access_token=None,
        source_conflict_strategy="overwrite",
    )  # fmt: skip


def previous_version(data_dir: Path) -> Path | None:
    """Return the folder of the version that was in force before, which `station rollback` goes back to."""
    try:
        return Path((data_dir / "previous-version").read_text().strip()).resolve()
    except OSError:
        return None
