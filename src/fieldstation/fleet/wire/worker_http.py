"""The worker's documented HTTP endpoints. GET as documented, and POST with the same meaning."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, Field, StrictStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fieldstation.core.errors import FieldstationError
from fieldstation.core.security import Role, UnauthorizedError, authorize
from fieldstation.fleet.errors import NotHeldError
from fieldstation.fleet.wire.arguments import read
from fieldstation.fleet.wire.faults import body_of, status_of
from fieldstation.fleet.wire.guard import PRINCIPAL
from fieldstation.fleet.worker import Worker

log = logging.getLogger(__name__)

M = TypeVar("M", bound=BaseModel)
Serial = Field(min_length=1, max_length=200, description="The device.")


class OneSerial(BaseModel):
    """Arguments of `/reboot`, `/delete` and `/unreserve`."""

    serial: StrictStr = Serial


class ReserveHere(BaseModel):
    """Arguments of `/reserve`."""

    serial: StrictStr = Serial
    kind: StrictStr = Field(min_length=1, max_length=200, description="What the device shall do.")
    args: dict[str, Any] = Field(default_factory=dict, description="Arguments of the kind.")


class WorkerHttp:
    """The endpoints of one worker; `more` are those that are not documented."""

    def __init__(self, worker: Worker, more: Sequence[Route] = ()) -> None:
        self.worker = worker
        self.app = Starlette(
            routes=[
                Route("/heartbeat", self._heartbeat, methods=["GET", "POST"]),
                self._route("/reserve", ReserveHere, self._reserve),
                self._route("/unreserve", OneSerial, self._unreserve),
                self._route("/reboot", OneSerial, self._reboot),
                self._route("/delete", OneSerial, self._delete),
                *more,
            ]
        )

    def _route(self, path: str, model: type[M], act: Callable[[M], Mapping[str, Any] | None]) -> Route:
        async def handle(request: Request) -> Response:
            try:
                principal = request.scope.get(PRINCIPAL)
                if principal is None:
                    raise UnauthorizedError()
                authorize(principal, Role.OPERATOR, f"{path} on a worker")
                answer = act(await read(request, model))
            except FieldstationError as error:
                return JSONResponse(body_of(error), status_of(error, documented=request.method == "GET"))
            log.info("%s by %s", path, principal.user)
            return Response() if answer is None else JSONResponse(answer)

        return Route(path, handle, methods=["GET", "POST"])

    async def _heartbeat(self, request: Request) -> Response:
        return Response()

    def _reserve(self, arguments: ReserveHere) -> Mapping[str, Any]:
        held, token = self.worker.reserve_here(arguments.serial, arguments.kind, arguments.args)
        return {"serial": arguments.serial, "lease": token, "fence": held.fences[arguments.serial]}

    def _unreserve(self, arguments: OneSerial) -> None:
        holders = [held for held in self.worker.holdings.active() if arguments.serial in held.fences]
        if not holders:
            raise NotHeldError(f"No reservation holds {arguments.serial} here; there is nothing to end.")
        self.worker.release(holders[0].id, [arguments.serial], "ended on the worker")

    def _reboot(self, arguments: OneSerial) -> None:
        self.worker.reboot(arguments.serial)

    def _delete(self, arguments: OneSerial) -> None:
        self.worker.delete(arguments.serial)
        # A worker without control has no other way to end a quarantine; where there is one, it says so at each hello.
        self.worker.devices.set_service(arguments.serial, None)
