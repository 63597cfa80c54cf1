"""What can be wrong with a site, each with its mend."""

from __future__ import annotations

from fieldstation.core.errors import ConfigError, FieldstationError


class SiteFileError(ConfigError):
    """The site file {path} is not in order:
    {problems}"""


class UnknownMachineError(FieldstationError):
    """The site file knows no machine named {name!r}; it names {known}. Say which one this is with --machine NAME."""


class NothingToRunError(FieldstationError):
    """No role of the site file belongs to the machine {machine!r}{only}. Its roles are: {roles}."""


class UnknownRoleError(FieldstationError):
    """The site file has no role {name!r}; it has: {roles}."""


class SiteRunningError(FieldstationError):
    """The site {name} runs already, as process {pid}, in {folder}. Stop that one first."""


class RoleStartError(FieldstationError):
    """The role {role} cannot start: {problem}"""


class SiteFolderError(FieldstationError):
    """The folder {folder} cannot be used for the site's files: {problem}."""
