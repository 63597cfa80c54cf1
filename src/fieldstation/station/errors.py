"""What goes wrong on a station, each with its mend."""

from __future__ import annotations

from fieldstation.core.errors import ConfigError, FieldstationError, StoreError


class StationConfigError(ConfigError):
    """The setting {key} in {source} is wrong: {problem}."""


class NoStationError(FieldstationError):
    """There is no station in {path}: it has no config/config.json.
    Go to a station's folder, name it on the command line, or make one with `fieldstation station new DIR`."""


class AlreadyRunningError(FieldstationError, TimeoutError):
    """This station is already running: the lock {path} is taken. Stop it with `fieldstation station stop` first."""


class OutboxUnavailableError(StoreError):
    """The message could not be stored within {deadline_s} s, because the writer of {path} did not answer ({problem}).
    The message is not stored; nothing was acknowledged."""


class DiskFullError(StoreError):
    """The disk that holds {path} is full and nothing that was delivered is left to drop. The message is not stored.
    Make room or export and remove old archive days."""


class PoisonMessageError(FieldstationError):
    """The uplink cannot send message {identifier}: {problem}. It is set aside and stays in the archive."""


class UpdateError(FieldstationError):
    """The update was refused: {problem}"""


class UnsafeReleaseError(UpdateError):
    """The release was refused: {problem}"""
