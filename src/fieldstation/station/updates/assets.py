"""The files of a signed source: as they are addressed, and as they are asked for."""

from __future__ import annotations

import json

from fieldstation.station.config import UpdaterConfig
from fieldstation.station.errors import UpdateError
from fieldstation.station.updates import sources
from fieldstation.station.updates.fetch import stream

_MAX_LISTING = 5_000_000


class Assets:
    """Turns addresses into requests. A private release on GitHub is asked for by the numbers of its assets."""

    def __init__(self, updater: UpdaterConfig) -> None:
        self._updater = updater
        self._numbers: dict[str, dict[str, int]] = {}

    def request_for(self, url: str) -> sources.Request:
        """Return the request for a file below one of the bases of `sources`; UpdateError when a release lacks it."""
        updater = self._updater
        if updater.provider != "github" or updater.access_token is None:
            return sources.Request(url, sources.headers_of(updater))
        tag, name = url.split("/")[-2:]
        if tag not in self._numbers:
            self._numbers[tag] = self._listed(tag)
        if name not in self._numbers[tag]:
            raise UpdateError(problem=f"the release {tag} of {updater.repository} has no asset {name}")
        return sources.github_asset(updater, self._numbers[tag][name])

    def _listed(self, tag: str) -> dict[str, int]:
        content = b"".join(stream(sources.github_release(self._updater, tag), max_bytes=_MAX_LISTING))
        try:
            return {str(asset["name"]): int(asset["id"]) for asset in json.loads(content)["assets"]}
        except (ValueError, KeyError, TypeError) as error:
            raise UpdateError(problem=f"GitHub described the release {tag} in a form that is not known") from error
