"""The plain page at `/`: workers, devices, reservations, and what an operator does with them."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from string import Template
from typing import Any
from urllib.parse import parse_qs, quote

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from fieldstation.core.errors import FieldstationError
from fieldstation.core.security import LOCAL, Principal, Role, authorize
from fieldstation.fleet.control import Control
from fieldstation.fleet.errors import BadRequestError
from fieldstation.fleet.wire import rows
from fieldstation.fleet.wire.guard import PRINCIPAL

ACTIONS = ("end", "reboot", "delete")
MAX_FORM = 10_000

_HERE = files("fieldstation.fleet.wire")


def mount(app: FastAPI, control: Control) -> None:
    """Serve `/`, `/style.css` and the page's forms (POST only: a link that is followed in advance ends nothing)."""
    template = Template((_HERE / "panel.html").read_text())
    style = (_HERE / "panel.css").read_text()

    async def page(request: Request) -> Response:
        who: Principal = request.scope[PRINCIPAL]
        try:
            authorize(who, Role.VIEWER, "looking at the fleet")
        except FieldstationError as error:
            return HTMLResponse(escape(str(error)), 403)
        # `web` says so when it mounts the panel: this page needs no extra, and knows nothing of it but the way there.
        more = getattr(app.state, "panel", False)
        return HTMLResponse(render(template, control, who, request.query_params.get("note", ""), panel=more))

    async def css(request: Request) -> Response:
        return Response(style, media_type="text/css")

    async def act(request: Request) -> Response:
        action = request.path_params["action"]
        try:
            note = await _act(control, action, await _serial(request), request.scope[PRINCIPAL])
        except FieldstationError as error:
            note = str(error)
        return RedirectResponse("../?note=" + quote(note), 303)

    app.add_route("/", page, include_in_schema=False)
    app.add_route("/style.css", css, include_in_schema=False)
    app.add_route("/panel/{action:str}", act, methods=["POST"], include_in_schema=False)


async def _serial(request: Request) -> str:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM:
            raise BadRequestError(field="serial", problem="the form is too long")
    values = parse_qs(body.decode(errors="replace")).get("serial", [])
    if len(values) != 1:
        raise BadRequestError(field="serial", problem="name one device")
    return values[0]


async def _act(control: Control, action: str, serial: str, who: Principal) -> str:
    reservations = control.reservations
    if action == "end":
        done = await reservations.end(who, _own_client(control, serial, who), [serial])
        return f"The reservation of {serial} has ended." if done else f"{serial} was not reserved."
    if action == "reboot":
        done = await reservations.reboot(who, [serial])
        return f"{serial} reboots." if done else f"The worker of {serial} did not accept the reboot."
    if action == "delete":
        done = await reservations.delete(who, [serial])
        return f"{serial} is deleted." if done else f"The worker of {serial} did not accept."
    raise BadRequestError(field="action", problem=f"it is one of {', '.join(ACTIONS)}")


def _own_client(control: Control, serial: str, who: Principal) -> str | None:
    """Return under which client name `who` holds the device; None when it is not theirs, which asks for an operator."""
    holding = control.index.holding_of(serial)
    return holding.lease.holder.client if holding and holding.lease.holder.user == who.user else None


def render(template: Template, control: Control, who: Principal, note: str = "", *, panel: bool = False) -> str:
    """Return the page. Everything in it is escaped: names come from anybody."""
    workers = rows.all_workers(control.index)
    devices = rows.all_devices(control.index)
    states = [device["state"] for device in devices]
    operator = who.role >= Role.OPERATOR
    return template.substitute(
        note=f'<p class="note" role="status">{escape(note[:500])}</p>' if note else "",
        panel='<a href="ui/">Panel</a> · ' if panel else "",
        who=escape(f"{who.user} ({who.role.name.lower()})"),
        now=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        worker_count=len(workers),
        worker_rows="".join(_worker(worker) for worker in workers) or _nothing(7, "No worker has called yet."),
        total=len(devices),
        available=control.amount,
        reserved=states.count("reserved"),
        broken=states.count("broken"),
        device_rows="".join(_device(d, who, operator) for d in devices) or _nothing(9, "No devices."),
    )


def _nothing(columns: int, text: str) -> str:
    return f'<tr><td colspan="{columns}" class="dim">{text}</td></tr>'


def _worker(worker: dict[str, Any]) -> str:
    cells = (
        f"<td>{escape(worker['name'])}</td><td>{escape(worker['url'])}</td><td>{escape(worker['version'])}</td>"
        f"<td>{escape(', '.join(worker['kinds']))}</td><td>{worker['devices']}</td>"
        f"<td>{'yes' if worker['draining'] else 'no'}</td>"
    )
    beat = f'<a href="{escape(worker["url"])}/heartbeat" rel="noreferrer">{escape(worker["state"])}</a>'
    return f'<tr>{cells}<td class="{escape(worker["state"])}">{beat}</td></tr>'


def _device(device: dict[str, Any], who: Principal, operator: bool) -> str:
    held = device["client"] is not None
    mine = held and device["user"] == who.user and who.role >= Role.USER
    until = device["until"][11:16] + " UTC" if held else ""
    away = device["worker_state"] != "online"
    state = device["worker_state"] if away and not held else device["state"]
    # Two users' programs may have one name; a person at this machine is the only user where nobody has a token.
    user = f" <small>{escape(device['user'])}</small>" if held and device["user"] != LOCAL.user else ""
    holder = escape(device["client"]) + user if held else ""
    kind = device["kind"] if held else ""
    cells = (
        f"<td>{escape(device['serial'])}</td><td>{escape(device['worker'])}</td>"
        f'<td class="{escape(state)}" title="{escape(device["reason"])}">{escape(state)}'
        f"{' <small>' + escape(device['reason']) + '</small>' if device['reason'] else ''}</td>"
        f"<td>{holder}</td><td>{escape(kind)}</td><td>{until}</td>"
    )
    buttons = (
        _button("end", device["serial"], "End", held and (operator or mine)),
        _button("reboot", device["serial"], "Reboot", not away and (operator or mine)),
        _button("delete", device["serial"], "Delete", operator and not held),
    )
    return f"<tr>{cells}{''.join(f'<td>{button}</td>' for button in buttons)}</tr>"


def _button(action: str, serial: str, text: str, allowed: bool) -> str:
    disabled = "" if allowed else " disabled"
    return (
        f'<form method="post" action="panel/{action}"><input type="hidden" name="serial" value="{escape(serial)}">'
        f'<button{disabled} aria-label="{text} {escape(serial)}">{text}</button></form>'
    )
