"""Where releases lie: addresses per provider. Pure.

A signed source is a TUF repository: `metadata/` and, for each version, the release as a target. A mirror or a folder
holds both side by side; on GitHub and GitLab metadata are the assets of the release tagged `metadata`, targets those of
the version's own release. Unsigned sources are the archives that GitHub and GitLab make of a tag.

What is private comes through the providers' APIs, which are what takes a token:
https://docs.github.com/en/rest/releases/assets and https://docs.gitlab.com/api/releases/.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from fieldstation.station.config import UpdaterConfig
from fieldstation.station.version import Version


@dataclass(frozen=True, slots=True)
class Request:
    """An address and the headers it needs. A token is only ever a header: addresses end up in logs."""

    url: str
    headers: tuple[tuple[str, str], ...] = ()


def target_name(name: str, version: Version) -> str:
    """Return the file name of a release."""
    return f"{name}-{version}.tar.gz"


def headers_of(updater: UpdaterConfig) -> tuple[tuple[str, str], ...]:
    """Return what authorises us at the provider."""
    if updater.access_token is None:
        return ()
    if updater.provider == "gitlab":
        return (("PRIVATE-TOKEN", updater.access_token),)
    return (("Authorization", f"Bearer {updater.access_token}"),)


def unsigned_archive(updater: UpdaterConfig, version: Version, name: str) -> Request:
    """Return the address of a version's source archive."""
    tag, repository = version.as_tag(), updater.repository
    match updater.provider:
        case "github":
            return _github_api(updater, f"tarball/{tag}")
        case "gitlab":
            file = f"{repository.rpartition('/')[2]}-{tag}.tar.gz"
            return Request(f"{_web(updater.provider_host)}/{repository}/-/archive/{tag}/{file}", headers_of(updater))
        case _:
            return Request(f"{_base(updater)}/targets/{target_name(name, version)}", headers_of(updater))


def github_release(updater: UpdaterConfig, tag: str) -> Request:
    """Return the address of GitHub's description of a release, which lists its assets."""
    return _github_api(updater, f"releases/tags/{tag}")


def github_asset(updater: UpdaterConfig, number: int) -> Request:
    """Return the address of an asset's content."""
    return _github_api(updater, f"releases/assets/{number}", accept="application/octet-stream")


def metadata_base(updater: UpdaterConfig) -> str:
    """Return the address under which the TUF metadata lie, with a slash at the end."""
    return _release(updater, "metadata") or f"{_base(updater)}/metadata/"


def target_base(updater: UpdaterConfig, version: Version) -> str:
    """Return the address under which a version's release lies, with a slash at the end."""
    return _release(updater, version.as_tag()) or f"{_base(updater)}/targets/"


def _release(updater: UpdaterConfig, tag: str) -> str | None:
    web, repository = _web(updater.provider_host), updater.repository
    match updater.provider:
        case "github":
            return f"{web}/{repository}/releases/download/{tag}/"
        case "gitlab" if updater.access_token is not None:
            return f"{web}/api/v4/projects/{quote(repository, safe='')}/releases/{tag}/downloads/"
        case "gitlab":
            return f"{web}/{repository}/-/releases/{tag}/downloads/"
        case _:
            return None


def _github_api(updater: UpdaterConfig, path: str, accept: str = "application/vnd.github+json") -> Request:
    headers = (("Accept", accept), ("X-GitHub-Api-Version", "2022-11-28"))
    url = f"{_web(updater.provider_host, 'api.')}/repos/{updater.repository}/{path}"
    return Request(url, headers + headers_of(updater))


def _web(host: str, prefix: str = "") -> str:
    # Tests and air-gapped mirrors name a whole address; a bare host is reached by HTTPS only.
    return host.rstrip("/") if "://" in host else f"https://{prefix}{host.strip('/')}"


def _base(updater: UpdaterConfig) -> str:
    if updater.provider == "folder":
        return "file://" + quote(str(Path(updater.provider_host).absolute() / updater.repository))
    return f"{_web(updater.provider_host)}/{updater.repository}"
