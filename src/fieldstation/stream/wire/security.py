"""Who may call: bearer tokens in the metadata, credentials for TLS."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc

from fieldstation.core.errors import ConfigError
from fieldstation.core.security import LOCAL, Principal, Role, TokenFile

log = logging.getLogger(__name__)

# Who may call what; anything else (ping, reflection) needs a token of any role.
ROLES = {
    "/daqdata.DaqData/InitHpIo": Role.OPERATOR,
    "/daqdata.DaqData/UploadImages": Role.USER,
    "/ubloxcontrol.UbloxControl/InitF9t": Role.OPERATOR,
}


def bearer(metadata: Any) -> str:
    """Return the token of an `authorization: Bearer ...` entry, "" without one."""
    for key, value in metadata or ():
        if key == "authorization" and isinstance(value, str) and value.lower().startswith("bearer "):
            return value[7:].strip()
    return ""


class TokenInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc ships no types
    """Refuses calls without a token of sufficient role. Local users of a UNIX socket need none: the file guards it."""

    def __init__(self, tokens: TokenFile) -> None:
        self._tokens = tokens

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """Wrap the handler: only there the peer's address is known."""
        handler = await continuation(details)
        if handler is None:
            return None
        token = bearer(details.invocation_metadata)
        method = details.method

        def allow(context: Any) -> tuple[grpc.StatusCode, str] | None:
            principal: Principal | None = (
                LOCAL if context.peer().startswith("unix:") and not token else self._tokens.lookup(token)
            )
            if principal is None:
                return (
                    grpc.StatusCode.UNAUTHENTICATED,
                    "This server needs a token: metadata `authorization: Bearer <token>`.",
                )
            needed = ROLES.get(method, Role.VIEWER)
            if principal.role < needed:
                has, needs = principal.role.name.lower(), needed.name.lower()
                return (
                    grpc.StatusCode.PERMISSION_DENIED,
                    f"{principal.user} has the role {has}; {method} needs {needs}.",
                )
            if needed > Role.VIEWER:
                log.info("audit: %s calls %s from %s", principal.user, method, context.peer())
            return None

        return _guarded(handler, allow)


def _guarded(handler: Any, allow: Callable[[Any], tuple[grpc.StatusCode, str] | None]) -> Any:
    def guard(behaviour: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
        async def guarded(request: Any, context: Any) -> Any:
            refusal = allow(context)
            if refusal is not None:
                await context.abort(*refusal)
            return await behaviour(request, context)

        return guarded

    def guard_generator(behaviour: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        async def guarded(request: Any, context: Any) -> Any:
            refusal = allow(context)
            if refusal is not None:
                await context.abort(*refusal)
            async for response in behaviour(request, context):
                yield response

        return guarded

    import inspect

    name = f"{'stream' if handler.request_streaming else 'unary'}_{'stream' if handler.response_streaming else 'unary'}"
    behaviour = getattr(handler, name)
    wrap = guard_generator if inspect.isasyncgenfunction(behaviour) else guard
    return handler._replace(**{name: wrap(behaviour)})


def server_credentials(certificate: Path, key: Path, client_ca: Path | None) -> grpc.ServerCredentials:
    """Return TLS credentials from PEM files; with `client_ca` clients must show a certificate of it."""
    pair = (_pem(key), _pem(certificate))
    if client_ca is None:
        return grpc.ssl_server_credentials((pair,))
    return grpc.ssl_server_credentials((pair,), root_certificates=_pem(client_ca), require_client_auth=True)


def channel_credentials(ca: Path | None, certificate: Path | None, key: Path | None) -> grpc.ChannelCredentials:
    """Return a client's TLS credentials; without `ca` the system's authorities are trusted."""
    return grpc.ssl_channel_credentials(
        _pem(ca) if ca else None, _pem(key) if key else None, _pem(certificate) if certificate else None
    )


def _pem(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"The PEM file {path} cannot be read: {error.strerror}.") from error
