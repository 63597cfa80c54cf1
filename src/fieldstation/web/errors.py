"""What can go wrong at the panel."""

from __future__ import annotations

from fieldstation.core.errors import FieldstationError


class WebError(FieldstationError):
    """The panel cannot do that."""


class LoginRefusedError(WebError):
    """No user of that name has that token. `fieldstation tokens create NAME` makes one."""


class TooManyLoginsError(WebError):
    """Too many wrong logins from {address}; the next one is looked at in {wait_s} seconds."""


class SecondPanelError(WebError):
    """This process serves a panel already, and the panel's library serves one for each process."""
