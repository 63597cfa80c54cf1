"""Make and sign releases: a TUF repository of flat files, for any web server, release page or USB stick.

Two keys: `root.pem` signs which keys count and stays offline; `release.pem` signs releases. Both are encrypted.
"""

from __future__ import annotations

import datetime
import gzip
import os
import tarfile
from pathlib import Path
from typing import Any

from fieldstation.core.files import replacing
from fieldstation.core.plugins import require
from fieldstation.station.errors import UpdateError
from fieldstation.station.place import place_of
from fieldstation.station.version import Version

LEFT_OUT = {".git", ".venv", "data", "__pycache__", ".pytest_cache", "run.lock", "dist", ".env"}
LEFT_OUT_FILES = {"config/config.json", "config/.env"}
LEFT_OUT_FOLDERS = {"config/trust"}
ROLES = ("timestamp", "snapshot", "targets")


def pack(project: Path, targets: Path, wheels: Path | None = None) -> Path:
    """Write `<name>-<version>.tar.gz` of a project: what is the machine's own (config, data, environment) is left out.

    The same content gives the same bytes.
    """
    place = place_of(project)
    if not (project / "pyproject.toml").is_file():
        raise UpdateError(problem=f"{project} has no pyproject.toml")
    name = f"{place.name}-{Version(place.version)}"
    targets.mkdir(parents=True, exist_ok=True)
    archive = targets / f"{name}.tar.gz"
    files = [(path, path.relative_to(project)) for path in sorted(project.rglob("*")) if path.is_file()]
    files = [(path, relative) for path, relative in files if _belongs(relative)]
    if wheels is not None:
        # `COMPLETE` tells the station to look nowhere else.
        brought = [*sorted(wheels.glob("*.whl")), *wheels.glob("COMPLETE")]
        files += [(path, Path("wheels") / path.name) for path in brought]
    with (
        archive.open("wb") as raw,
        gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path, relative in files:
            info = tar.gettarinfo(path, arcname=str(Path(name) / relative))
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            info.mtime = 0
            with path.open("rb") as content:
                tar.addfile(info, content)
    return archive


def _belongs(relative: Path) -> bool:
    text = relative.as_posix()
    return not (
        set(relative.parts) & LEFT_OUT
        or text in LEFT_OUT_FILES
        or any(text.startswith(folder + "/") for folder in LEFT_OUT_FOLDERS)
    )


class Repository:
    """A folder with `metadata` and `targets`, and the keys that sign it."""

    def __init__(self, folder: Path, keys: Path, passphrase: str) -> None:
        self._api: Any = require("tuf.api.metadata", extra="station", feature="Signing releases")
        self._signers: Any = require("securesystemslib.signer", extra="station", feature="Signing releases")
        self._metadata = folder / "metadata"
        self._keys = keys
        self._passphrase = passphrase.encode()

    def ensure(self, expires_days: int) -> bool:
        """Make keys and the first metadata when there are none; returns whether they were made."""
        if (self._metadata / "timestamp.json").is_file():
            return False
        if (self._metadata / "root.json").is_file() or any(self._metadata.glob("*.root.json")):
            raise UpdateError(problem=f"{self._metadata} holds a root but no timestamp; mend it by hand")
        root_signer, release_signer = self._signer("root", make=True), self._signer("release", make=True)
        root = self._api.Root(expires=_in_days(expires_days * 5), consistent_snapshot=False)
        root.add_key(root_signer.public_key, "root")
        for role in ROLES:
            root.add_key(release_signer.public_key, role)
        self._write(self._api.Metadata(root), [root_signer], "1.root.json")
        self._sign_all(self._api.Targets(expires=_in_days(expires_days)), expires_days)
        return True

    def publish(self, archive: Path, expires_days: int) -> None:
        """Take a release into the signed targets; the version number of the metadata grows."""
        targets = self._api.Metadata.from_file(str(self._metadata / "targets.json")).signed
        targets.targets[archive.name] = self._api.TargetFile.from_file(archive.name, str(archive))
        targets.version += 1
        targets.expires = _in_days(expires_days)
        self._sign_all(targets, expires_days)

    def rotate_root(self, expires_days: int) -> None:
        """Make a new root key; the new root is signed by the old key and the new one, so that stations follow."""
        newest = max(self._metadata.glob("*.root.json"), key=lambda path: int(path.name.partition(".")[0]))
        root = self._api.Metadata.from_file(str(newest)).signed
        old = self._signer("root")
        (self._keys / "root.pem").rename(self._keys / f"root-{root.version}.pem")
        new = self._signer("root", make=True)
        root.revoke_key(old.public_key.keyid, "root")
        root.add_key(new.public_key, "root")
        root.version += 1
        root.expires = _in_days(expires_days * 5)
        self._write(self._api.Metadata(root), [old, new], f"{root.version}.root.json")

    def _sign_all(self, targets: Any, expires_days: int) -> None:
        signer = [self._signer("release")]
        self._write(self._api.Metadata(targets), signer, "targets.json")
        path = self._metadata / "snapshot.json"
        snapshot = self._next(path, self._api.Snapshot, expires_days)
        snapshot.meta["targets.json"] = self._api.MetaFile(targets.version)
        self._write(self._api.Metadata(snapshot), signer, "snapshot.json")
        timestamp = self._next(self._metadata / "timestamp.json", self._api.Timestamp, expires_days)
        timestamp.snapshot_meta = self._api.MetaFile(snapshot.version)
        self._write(self._api.Metadata(timestamp), signer, "timestamp.json")

    def _next(self, path: Path, kind: Any, expires_days: int) -> Any:
        if not path.is_file():
            return kind(expires=_in_days(expires_days))
        signed = self._api.Metadata.from_file(str(path)).signed
        signed.version += 1
        signed.expires = _in_days(expires_days)
        return signed

    def _write(self, metadata: Any, signers: list[Any], name: str) -> None:
        metadata.signatures.clear()
        for signer in signers:
            metadata.sign(signer, append=True)
        self._metadata.mkdir(parents=True, exist_ok=True)
        with replacing(self._metadata / name) as beside:
            metadata.to_file(str(beside))

    def _signer(self, name: str, *, make: bool = False) -> Any:
        serialization = require("cryptography.hazmat.primitives.serialization", extra="station", feature="Signing")
        path = self._keys / f"{name}.pem"
        if make and not path.is_file():
            ed25519 = require("cryptography.hazmat.primitives.asymmetric.ed25519", extra="station", feature="Signing")
            pem = ed25519.Ed25519PrivateKey.generate().private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(self._passphrase),
            )
            self._keys.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(pem)
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), self._passphrase)
        except FileNotFoundError as error:
            raise UpdateError(problem=f"the key {path} is not here") from error
        except ValueError as error:
            raise UpdateError(problem=f"the key {path} cannot be read: is the passphrase right?") from error
        return self._signers.CryptoSigner(key)


def _in_days(days: int) -> datetime.datetime:
    return (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)).replace(microsecond=0)
