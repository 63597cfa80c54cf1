"""Who acts on a page: asked again before each action, since a page stays open longer than a token may live."""

from __future__ import annotations

from starlette.requests import HTTPConnection

from fieldstation.core.security import LOCAL, Principal, Role, UnauthorizedError, authorize
from fieldstation.fleet.wire.guard import AGAIN, PRINCIPAL, Again, cookie_of


class Acting:
    """The user of one page."""

    def __init__(self, connection: HTTPConnection) -> None:
        self._again: Again = connection.scope[AGAIN]
        self.shown: Principal = connection.scope[PRINCIPAL]  # as the page was loaded: for what it offers, not for acts
        self.has_session = cookie_of(connection.headers.get("cookie", "")) is not None

    @property
    def is_local(self) -> bool:
        """True on a server that asks nobody who they are."""
        return self.shown == LOCAL

    async def as_(self, needed: Role, action: str) -> Principal:
        """Return who acts now; UnauthorizedError after a logout, ForbiddenError when the role is not enough."""
        principal = await self._again()
        if principal is None:
            raise UnauthorizedError("You are not logged in any more; load the page again.")
        authorize(principal, needed, action)
        return principal
