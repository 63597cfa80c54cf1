"""`/api/approvals`: the approvals over HTTP, for the command line, flows, workers and other people's pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, ValidationError

from fieldstation.core.errors import FieldstationError, first_problem
from fieldstation.core.security import LOCAL, ForbiddenError, Principal, Role, UnauthorizedError, authorize
from fieldstation.flow.codec import to_json
from fieldstation.flow.desk import Desk
from fieldstation.flow.errors import (
    AlreadyAnsweredError,
    ApprovalClosedError,
    ApprovalExpiredError,
    ApprovalUnknownError,
    BadRequestError,
    DigestMismatchError,
    NotAnApproverError,
    NotApprovedError,
)
from fieldstation.flow.model import State, Word

MAX_BODY = 1 << 20
MAX_WAIT_S = 60.0

STATUS: dict[type[FieldstationError], int] = {
    UnauthorizedError: 401,
    ForbiddenError: 403,
    NotAnApproverError: 403,
    ApprovalUnknownError: 404,
    ApprovalClosedError: 409,
    ApprovalExpiredError: 409,
    AlreadyAnsweredError: 409,
    NotApprovedError: 409,
    DigestMismatchError: 409,
    BadRequestError: 422,
}


class Ask(BaseModel):
    """The body of POST /api/approvals."""

    title: str = Field(max_length=500, description="What is asked, in a line.")
    action: dict[str, Any] = Field(description="Exactly what would run; its digest is what is approved.")
    reason: str = Field("", max_length=5000, description="Why.")
    approvers: list[str] = Field(default_factory=list, max_length=100, description="Who may decide; empty: anybody.")
    quorum: int = Field(1, ge=1, le=100, description="How many different people must approve.")
    own_answer: bool = Field(True, description="May the requester approve their own request.")
    expires_in_s: float = Field(3600.0, description="Seconds until it is closed as a no.")
    key: str | None = Field(None, max_length=500, description="A repeat with the same key finds the first request.")
    by: str | None = Field(None, max_length=200, description="Who asks, on a server without tokens.")


class AnswerBody(BaseModel):
    """The body of approve, deny and cancel."""

    comment: str = Field("", max_length=2000, description="Kept with the answer.")
    by: str | None = Field(None, max_length=200, description="Who answers, on a server without tokens.")
    through: str = Field("api", max_length=40, description="The channel it came by.")


class UseBody(BaseModel):
    """The body of use: the digest of what is about to run."""

    digest: str = Field(max_length=128, description="SHA-256 of the action's canonical JSON.")
    by: str | None = Field(None, max_length=200, description="Who runs it, on a server without tokens.")


class NoteBody(BaseModel):
    """The body of note: what became of it."""

    what: str = Field(max_length=40, description="Such as finished or failed.")
    details: dict[str, Any] = Field(default_factory=dict, description="Such as the exit code.")
    by: str | None = Field(None, max_length=200, description="Who ran it, on a server without tokens.")


class Problem(BaseModel):
    """What a refusal looks like."""

    error: str = Field(description="A word for programs.")
    message: str = Field(description="A sentence for people.")


_REFUSALS = {
    401: "There is no valid token.",
    403: "The role, or the list of approvers, does not allow it.",
    404: "There is no such approval.",
    409: "It is too late for that, or it was approved for something else.",
    422: "A field is wrong; the message names it.",
}
_STATE = {"name": "state", "in": "query", "schema": {"type": "string", "enum": list(State)}}
_WAIT = {"name": "wait_s", "in": "query", "schema": {"type": "number", "minimum": 0, "maximum": MAX_WAIT_S}}
_IDENTITY = {"name": "identity", "in": "path", "required": True, "schema": {"type": "string"}}


def router(desk: Desk, principal_of: Callable[[Request], Principal | None]) -> APIRouter:
    """Return the routes; `principal_of` says who a request acts for (None: nobody, which is refused)."""
    api = APIRouter(prefix="/api/approvals", tags=["approvals"])
    endpoints = _Endpoints(desk, principal_of)
    routes: tuple[tuple[str, str, Callable[[Request], Awaitable[Any]], type[BaseModel] | None, list[Any]], ...] = (
        ("POST", "", endpoints.ask, Ask, []),
        ("GET", "", endpoints.listing, None, [_STATE]),
        ("GET", "/{identity}", endpoints.get, None, [_IDENTITY, _WAIT]),
        ("GET", "/{identity}/audit", endpoints.audit, None, [_IDENTITY]),
        ("POST", "/{identity}/approve", endpoints.approve, AnswerBody, [_IDENTITY]),
        ("POST", "/{identity}/deny", endpoints.deny, AnswerBody, [_IDENTITY]),
        ("POST", "/{identity}/cancel", endpoints.cancel, AnswerBody, [_IDENTITY]),
        ("POST", "/{identity}/use", endpoints.use, UseBody, [_IDENTITY]),
        ("POST", "/{identity}/note", endpoints.note, NoteBody, [_IDENTITY]),
    )
    for method, path, handler, body, parameters in routes:
        extra: dict[str, Any] = {"parameters": parameters}
        if body is not None:
            content = {"application/json": {"schema": body.model_json_schema()}}
            extra["requestBody"] = {
                "required": any(f.is_required() for f in body.model_fields.values()),
                "content": content,
            }
        # The bodies are read by hand: a wrong one is one sentence here, as everywhere.
        api.add_api_route(
            path,
            _answering(handler),
            methods=[method],
            summary=handler.__doc__,
            response_model=None,
            status_code=201 if body is Ask else 200,
            responses={status: {"model": Problem, "description": text} for status, text in _REFUSALS.items()},
            openapi_extra=extra,
        )
    return api


class _Endpoints:
    def __init__(self, desk: Desk, principal_of: Callable[[Request], Principal | None]) -> None:
        self._desk = desk
        self._principal_of = principal_of

    def _who(self, request: Request, needed: Role, action: str, by: str | None = None) -> str:
        principal = self._principal_of(request)
        if principal is None:
            raise UnauthorizedError()
        authorize(principal, needed, action)
        if by and by != principal.user and principal != LOCAL:
            raise ForbiddenError(f"The token belongs to {principal.user}, who cannot act as {by}.")
        return by or principal.user

    async def ask(self, request: Request) -> Any:
        """Ask for an approval."""
        body = await _read(request, Ask)
        who = self._who(request, Role.USER, "asking for an approval", body.by)
        fields = body.model_dump(exclude={"by"})
        return JSONResponse(to_json(await self._desk.ask(requester=who, **fields)), 201)

    async def listing(self, request: Request) -> Any:
        """List approvals, the newest first; `state` chooses some."""
        self._who(request, Role.VIEWER, "looking at approvals")
        state = request.query_params.get("state")
        if state is not None and state not in {s.value for s in State}:
            raise BadRequestError(field="state", problem=f"it is one of {', '.join(State)}")
        return [to_json(a) for a in await self._desk.listing(State(state) if state else None)]

    async def get(self, request: Request) -> Any:
        """Return one approval; with `wait_s` once it is decided, or then."""
        self._who(request, Role.VIEWER, "looking at approvals")
        identity, text = request.path_params["identity"], request.query_params.get("wait_s", "0")
        try:
            seconds = float(text)
        except ValueError as error:
            raise BadRequestError(field="wait_s", problem="it is not a number") from error
        if not 0 <= seconds <= MAX_WAIT_S:
            raise BadRequestError(field="wait_s", problem=f"it is not within 0 and {MAX_WAIT_S:g}")
        return to_json(await (self._desk.wait(identity, seconds) if seconds else self._desk.get(identity)))

    async def audit(self, request: Request) -> Any:
        """Return everything that happened to one approval, oldest first."""
        self._who(request, Role.VIEWER, "looking at approvals")
        return await self._desk.trail(request.path_params["identity"])

    async def approve(self, request: Request) -> Any:
        """Say yes."""
        return await self._answer(request, Word.APPROVE)

    async def deny(self, request: Request) -> Any:
        """Say no."""
        return await self._answer(request, Word.DENY)

    async def _answer(self, request: Request, word: Word) -> Any:
        body = await _read(request, AnswerBody)
        who = self._who(request, Role.USER, "answering a request", body.by)
        return to_json(await self._desk.answer(request.path_params["identity"], who, word, body.through, body.comment))

    async def cancel(self, request: Request) -> Any:
        """Take a request back: the requester, or an operator."""
        body = await _read(request, AnswerBody)
        identity = request.path_params["identity"]
        who = self._who(request, Role.USER, "taking a request back", body.by)
        if who != (await self._desk.get(identity)).requester:
            self._who(request, Role.OPERATOR, "taking back what another one asked for")
        return to_json(await self._desk.cancel(identity, who))

    async def use(self, request: Request) -> Any:
        """Use an approval, once, for what has this digest."""
        body = await _read(request, UseBody)
        who = self._who(request, Role.USER, "using an approval", body.by)
        return to_json(await self._desk.use(request.path_params["identity"], body.digest, who))

    async def note(self, request: Request) -> Any:
        """Append to the audit what became of it."""
        body = await _read(request, NoteBody)
        who = self._who(request, Role.USER, "writing into the audit", body.by)
        await self._desk.note(request.path_params["identity"], who, body.what, body.details)
        return {"ok": True}


async def _read(request: Request, model: Any) -> Any:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY:
            raise BadRequestError(field="body", problem=f"it is longer than {MAX_BODY} bytes")
    try:
        return model.model_validate_json(bytes(data) or b"{}")
    except ValidationError as error:
        field, problem = first_problem(error)
        raise BadRequestError(field=field or "body", problem=problem) from error


def _answering(handler: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Awaitable[Any]]:
    async def answer(request: Request) -> Any:
        try:
            return await handler(request)
        except FieldstationError as error:
            for kind, status in STATUS.items():
                if isinstance(error, kind):
                    return JSONResponse({"error": error.code, "message": str(error)}, status)
            raise

    return answer
