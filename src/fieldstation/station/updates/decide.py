"""What to do with a config that arrived. Pure: it looks, and decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from fieldstation.station.config import Config, ForeignConfig, as_data
from fieldstation.station.secrets import unmasked

TRUST_SETTINGS = ("repository", "provider", "provider_host", "access_token")


@dataclass(frozen=True, slots=True)
class Decision:
    """`ignore` says nothing, `reject` and `in_force` answer; the other two try `foreign`, its secrets filled in."""

    action: Literal["ignore", "reject", "in_force", "config", "version"]
    reason: str = ""
    foreign: ForeignConfig | None = None


def decide(
    foreign: ForeignConfig, current: Config, version: str, answered: str | None, *, local_source: bool = False
) -> Decision:
    """Decide by the documented rules; `answered` is what was said to the same config before.

    `local_source`: a person at the station named where this version comes from.
    """
    data: dict[str, Any] = foreign.model_dump(mode="json")
    if answered in ("accepted", "rejected"):
        return Decision("ignore", f"it was {answered} before")
    if "unreadable" in data:
        return Decision("reject", str(data["unreadable"]))
    stored = as_data(current)
    data = unmasked(data, stored)
    revision, current_revision = foreign.general.config_revision, current.general.config_revision
    same_version = foreign.general.software_version.as_identifier() == version
    if revision <= current_revision:
        if revision == current_revision and same_version and _same(data, current):
            return Decision("in_force")
        return Decision("reject", f"revision {revision} is not newer than {current_revision}, which is in force")
    if (problem := _touches_trust(data, stored)) is not None:
        return Decision("reject", problem)
    filled = ForeignConfig.model_validate(data)
    if same_version:
        return Decision("config", foreign=filled)
    if current.updater is None and not local_source:
        return Decision("reject", "this station never changes its version: its config has no section `updater`")
    return Decision("version", foreign=filled)


def _same(data: dict[str, Any], current: Config) -> bool:
    try:
        return type(current).model_validate(data) == current
    except ValueError:
        return False


def _touches_trust(data: dict[str, Any], stored: dict[str, Any]) -> str | None:
    # Who can publish a config can then not make the station run code from elsewhere.
    new, old = data.get("updater") or {}, stored.get("updater") or {}
    for key in TRUST_SETTINGS:
        if isinstance(new, dict) and new.get(key) != old.get(key):
            return f"a config from the server may not change updater.{key}; change it on the station"
    return None
