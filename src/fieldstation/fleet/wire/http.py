"""The documented HTTP endpoints of control, as GET and as POST, and our own under `/api/fleet/`."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fieldstation import __version__
from fieldstation.core.errors import FieldstationError
from fieldstation.core.security import Principal, Role, authorize
from fieldstation.fleet.control import Control, told
from fieldstation.fleet.control.waiting import Place
from fieldstation.fleet.errors import BadRequestError
from fieldstation.fleet.model import Holder, Row
from fieldstation.fleet.schedule import Want
from fieldstation.fleet.wire import answers, arguments, docs_page, faults, panel, rows
from fieldstation.fleet.wire.guard import PRINCIPAL
from fieldstation.fleet.wire.remote_log import write_remote

log = logging.getLogger(__name__)

Handler = Callable[[Request, Principal], Awaitable[Any]]


class Endpoints:
    """The handlers. Each returns what JSON can hold, or a Response; errors are turned into answers around them."""

    def __init__(self, control: Control) -> None:
        self.control = control

    async def available(self, request: Request, who: Principal) -> Any:
        """How many devices could be reserved now, of all kinds."""
        return {"amount": self.control.available(who)}

    async def devices(self, request: Request, who: Principal) -> Any:
        """Serials of the devices that could be reserved now; with `all` every device as an object."""
        if (await arguments.read(request, arguments.Devices, optional=True)).all:
            authorize(who, Role.VIEWER, "looking at devices")
            return rows.all_devices(self.control.index)
        return self.control.available_serials(who)

    async def reserve(self, request: Request, who: Principal) -> Any:
        """Reserve `amount` devices, all or none. Without `wait_s` or `ticket` the answer comes at once."""
        asked = await arguments.read(request, arguments.Reserve)
        if asked.amount < 0:
            # Documented as a refusal, not as malformed.
            raise BadRequestError(field="amount", problem="it must not be negative", documented_status=500)
        if asked.amount == 0:
            raise BadRequestError(field="amount", problem="ask for at least one device")
        return await self._reserve(request, who, asked, self._want(who, asked, asked.amount, ()))

    async def reserve_serials(self, request: Request, who: Principal) -> Any:
        """Reserve exactly these devices, all or none."""
        asked = await arguments.read(request, arguments.ReserveSerials)
        if not asked.serials and request.method == "POST":
            raise BadRequestError(field="serials", problem="name at least one device")
        serials = tuple(dict.fromkeys(asked.serials))
        return await self._reserve(request, who, asked, self._want(who, asked, 0, serials))

    async def _reserve(self, request: Request, who: Principal, asked: arguments.Kind, want: Want) -> Any:
        reservations = self.control.reservations
        answer: list[Row] | Place
        if asked.wait_s is None and asked.ticket is None:
            answer = await reservations.reserve(who, want, asked.args)
        else:
            answer = await reservations.wait(
                who,
                want,
                asked.args,
                wait_s=asked.wait_s or 0,
                ticket=asked.ticket,
                leave=asked.leave,
                gone=request.is_disconnected,
            )
        if isinstance(answer, Place):
            return JSONResponse(rows.place_in_queue(answer), 202)
        return [rows.reservation_row(row) for row in answer]

    @staticmethod
    def _want(who: Principal, asked: arguments.Kind, amount: int, serials: tuple[str, ...]) -> Want:
        holder = Holder(who.user, asked.name)
        return Want(holder, asked.kind, amount, serials, dict(asked.labels), asked.priority, asked.for_s)

    async def extend(self, request: Request, who: Principal) -> Any:
        """Extend the client's reservations of these devices; those of others are left out."""
        asked = await arguments.read(request, arguments.Extend)
        return await self.control.reservations.extend(who, asked.name, asked.serials, asked.for_s)

    async def extend_all(self, request: Request, who: Principal) -> Any:
        """Extend all reservations of the client."""
        asked = await arguments.read(request, arguments.ExtendAll)
        return await self.control.reservations.extend(who, asked.name, None, asked.for_s)

    async def end(self, request: Request, who: Principal) -> Any:
        """End the client's reservations of these devices; those of others are left out."""
        asked = await arguments.read(request, arguments.NamedSerials)
        return await self.control.reservations.end(who, asked.name, asked.serials)

    async def end_all(self, request: Request, who: Principal) -> Any:
        """End all reservations of the client."""
        asked = await arguments.read(request, arguments.Named)
        return await self.control.reservations.end(who, asked.name, None)

    async def reboot(self, request: Request, who: Principal) -> Any:
        """Reboot devices, keeping the client's data; answers the serials whose worker accepted."""
        asked = await arguments.read(request, arguments.OnlySerials)
        return await self.control.reservations.reboot(who, asked.serials)

    async def delete(self, request: Request, who: Principal) -> Any:
        """Forget devices that nobody holds; one that is plugged in comes back, freshly flashed."""
        asked = await arguments.read(request, arguments.OnlySerials)
        return await self.control.reservations.delete(who, asked.serials)

    async def clear_workers(self, request: Request, who: Principal) -> Any:
        """End all reservations of everybody; every connected client is told how many devices are free."""
        await self.control.reservations.clear(who)
        self.control.events.publish(told.available(self.control.amount))
        return {"status": "ok"}

    async def log(self, request: Request, who: Principal) -> Any:
        """Write records into control's log."""
        authorize(who, Role.USER, "writing into the log")
        asked = await arguments.read(request, arguments.Logs)
        write_remote(asked.name, request.client.host if request.client else "", asked.logs)
        return Response(status_code=200)

    async def workers(self, request: Request, who: Principal) -> Any:
        """Every worker and how its line is."""
        authorize(who, Role.VIEWER, "looking at workers")
        return rows.all_workers(self.control.index)

    async def every_device(self, request: Request, who: Principal) -> Any:
        """Every device with worker, state, health and holder."""
        authorize(who, Role.VIEWER, "looking at devices")
        return rows.all_devices(self.control.index)

    async def every_reservation(self, request: Request, who: Principal) -> Any:
        """Every reservation with holder and end."""
        authorize(who, Role.VIEWER, "looking at reservations")
        return rows.all_reservations(self.control.index)

    async def history(self, request: Request, who: Principal) -> Any:
        """The audit log, newest first; `limit` (1 to 1000, default 100) and `before` (an id) page through it."""
        limit = _number(request, "limit", 100, 1, 1000)
        before = _number(request, "before", 0, 1, 2**62) or None
        return await self.control.history(who, limit or 100, before)

    async def device_history(self, request: Request, who: Principal) -> Any:
        """The history of the device `serial`, newest first; `limit` (1 to 1000, default 100) and `before` (an id)."""
        serial = request.query_params.get("serial", "")
        if not serial:
            raise BadRequestError(field="serial", problem="name the device")
        limit = _number(request, "limit", 100, 1, 1000)
        before = _number(request, "before", 0, 1, 2**62) or None
        return await self.control.care.history(who, serial, limit or 100, before)

    async def maintenance(self, request: Request, who: Principal) -> Any:
        """Take a device out of service, or put it back: also one that the recovery ladder has quarantined."""
        asked = await arguments.read(request, arguments.Maintenance)
        return await self.control.care.maintenance(who, asked.serial, asked.on, asked.reason)


def _number(request: Request, name: str, default: int, low: int, high: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise BadRequestError(field=name, problem=f"it must be a number from {low} to {high}")
    return int(text)


def build(control: Control, **options: Any) -> FastAPI:
    """Return the app. `options` are FastAPI's own (such as `lifespan`)."""
    app = FastAPI(
        title="Fieldstation fleet",
        version=__version__,
        description=docs_page.DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        **options,
    )
    here = Endpoints(control)
    both: tuple[tuple[str, Handler, type[BaseModel] | None, Any], ...] = (
        ("/available", here.available, None, answers.Amount),
        ("/devices", here.devices, arguments.Devices, list[str] | list[answers.DeviceRow]),
        ("/reserve", here.reserve, arguments.Reserve, list[answers.ReservationRow]),
        ("/reserveserials", here.reserve_serials, arguments.ReserveSerials, list[answers.ReservationRow]),
        ("/extend", here.extend, arguments.Extend, list[str]),
        ("/extendall", here.extend_all, arguments.ExtendAll, list[str]),
        ("/end", here.end, arguments.NamedSerials, list[str]),
        ("/endall", here.end_all, arguments.Named, list[str]),
        ("/reboot", here.reboot, arguments.OnlySerials, list[str]),
        ("/delete", here.delete, arguments.OnlySerials, list[str]),
        ("/clear-workers", here.clear_workers, None, answers.Status),
        ("/log", here.log, arguments.Logs, None),
    )
    for path, handler, model, answer in both:
        for method in ("GET", "POST"):
            _route(app, control, method, path, handler, model, answer)
    own: tuple[tuple[str, Handler, Any], ...] = (
        ("/api/fleet/workers", here.workers, list[answers.WorkerRow]),
        ("/api/fleet/devices", here.every_device, list[answers.DeviceRow]),
        ("/api/fleet/reservations", here.every_reservation, list[answers.Reservation]),
        ("/api/fleet/events", here.history, list[answers.AuditRow]),
        ("/api/fleet/history", here.device_history, list[answers.HistoryRow]),
    )
    for path, handler, answer in own:
        _route(app, control, "GET", path, handler, None, answer)
    _route(app, control, "POST", "/api/fleet/maintenance", here.maintenance, arguments.Maintenance, answers.Service)
    panel.mount(app, control)
    docs_page.mount(app)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _mishap)
    return app


def _route(
    app: FastAPI,
    control: Control,
    method: str,
    path: str,
    handler: Handler,
    model: type[BaseModel] | None,
    answer: Any,
) -> None:
    documented = method == "GET" and not path.startswith("/api/")

    async def endpoint(request: Request) -> Response:
        try:
            try:
                result = await handler(request, request.scope[PRINCIPAL])
            except FieldstationError:
                control.must_lead()  # whatever else is wrong, we forgot everything when we were deposed
                raise
        except FieldstationError as error:
            status = faults.status_of(error, documented=documented)
            control.record.counts.refused[error.code] += 1
            if status >= 500:
                log.info("%s %s: %s", method, path, error)
            return JSONResponse(faults.body_of(error), status)
        if isinstance(result, Response):
            return result
        return Response(json.dumps(result), media_type="application/json")

    extra: dict[str, Any] = {}
    if model is not None:
        optional = model is arguments.Devices
        schema = docs_page.schema_of(app, model)
        content = {"application/json": {"schema": schema}}
        if method == "POST":
            if model is arguments.ReserveSerials:  # no serials: today's GET answers with none
                schema["properties"]["serials"]["minItems"] = 1
            extra["requestBody"] = {"required": not optional, "content": content}
        else:
            text = "The arguments as JSON. The released client sends them as the body of the GET instead."
            parameter = {"name": "json", "in": "query", "required": not optional, "description": text}
            extra["parameters"] = [{**parameter, "content": content}]
    name = path.strip("/").replace("/", "_").replace("-", "_")
    app.add_api_route(
        path,
        endpoint,
        methods=[method],
        summary=(handler.__doc__ or "").partition(".")[0] + ".",
        description=handler.__doc__ or "",
        operation_id=f"{method.lower()}_{name}",
        tags=["own" if path.startswith("/api/") else "documented"],
        response_model=None,
        response_class=Response if answer is None else JSONResponse,
        responses=answers.responses(path, model is not None, answer, documented=documented),
        openapi_extra=extra,
    )


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told_error = {"code": "http", "message": f"{request.method} {request.url.path}: {error.detail}"}
    return JSONResponse({"error": told_error}, error.status_code, headers=_headers(error.headers))


def _headers(headers: Mapping[str, str] | None) -> dict[str, str] | None:
    return None if headers is None else dict(headers)


async def _mishap(request: Request, error: Exception) -> Response:
    # The traceback is in the log (Starlette raises it again for the server); the client gets no insides.
    message = "Something went wrong inside the server; its log says what."
    return JSONResponse({"error": {"code": "internal", "message": message}}, 500)
