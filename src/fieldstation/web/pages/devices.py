"""Devices: who has what, how each is, and the documented actions."""

from __future__ import annotations

from typing import Any

from nicegui import ui
from starlette.requests import Request

from fieldstation.core.security import Principal, Role
from fieldstation.fleet.model import Holder
from fieldstation.fleet.schedule import Want
from fieldstation.fleet.wire import rows as wire_rows
from fieldstation.web.acting import Acting
from fieldstation.web.deed import attempt, shown
from fieldstation.web.errors import WebError
from fieldstation.web.frame import frame
from fieldstation.web.fresh import keep_fresh
from fieldstation.web.rows import Rows
from fieldstation.web.sources import Sources

REFRESH_S = 0.5
COLUMNS = (
    {"name": "serial", "label": "Serial", "kind": "code"},
    {"name": "worker", "label": "Worker"},
    {"name": "state", "label": "State", "kind": "state"},
    {"name": "health", "label": "Health", "kind": "state"},
    {"name": "client", "label": "Held by"},
    {"name": "kind", "label": "As"},
    {"name": "until", "label": "Until", "kind": "time"},
)
ACTIONS = (
    {"name": "extend", "label": "Extend"},
    {"name": "end", "label": "End", "kind": "grave"},
    {"name": "reboot", "label": "Reboot"},
    {"name": "delete", "label": "Delete", "kind": "grave"},
    {"name": "out", "label": "Take out…"},
    {"name": "back", "label": "Put back"},
    {"name": "history", "label": "History"},
)
HISTORY = 500
HISTORY_COLUMNS = (
    {"name": "at", "label": "When", "kind": "time"},
    {"name": "what", "label": "What"},
    {"name": "who", "label": "Who"},
    {"name": "detail", "label": "Detail", "kind": "long"},
)
WORKERS = (
    {"name": "name", "label": "Worker"},
    {"name": "state", "label": "Line", "kind": "state"},
    {"name": "devices", "label": "Devices"},
    {"name": "url", "label": "Address", "kind": "code"},
    {"name": "version", "label": "Version"},
    {"name": "seen_at", "label": "Seen", "kind": "time"},
)


def device_rows(devices: list[dict[str, Any]], who: Principal) -> list[dict[str, Any]]:
    """Return the rows of the table; `can` is what `who` may do now."""
    found = []
    for device in devices:
        held, away = device["client"] is not None, device["worker_state"] != "online"
        mine = held and device["user"] == who.user
        operator = who.role >= Role.OPERATOR
        can = {
            "extend": mine and who.role >= Role.USER,
            "end": held and (operator or (mine and who.role >= Role.USER)),
            "reboot": not away and (operator or (mine and who.role >= Role.USER)),
            "delete": operator and not held,
            "out": operator and device["health"] != "maintenance",
            "back": operator and device["health"] in ("maintenance", "quarantined"),
            "history": True,
        }
        holder = f"{device['client']} ({device['user']})" if held else ""
        found.append(
            {
                "key": device["serial"],
                "serial": device["serial"],
                "worker": device["worker"],
                "state": device["worker_state"] if away and not held else device["state"],
                "health": device["health"],
                "health_note": device["reason"],
                "client": holder,
                "kind": device["kind"] or "",
                "until": device["until"] or "",
                "can": [name for name, may in can.items() if may],
            }
        )
    return found


def history_rows(audit: list[dict[str, Any]], steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what people did with a device and what its worker did for it, newest first."""
    acts = [(e["at"], f"a{e['id']}", e["action"], e["user"], e["client"] or e["detail"]) for e in audit]
    cares = [(s["at"], f"s{s['id']}", s["step"], s["user"] or s["worker"], s["detail"]) for s in steps]
    found = {(at, what): (key, who, detail) for at, key, what, who, detail in [*acts, *cares]}
    return [
        {"key": key, "at": at, "what": what, "who": who, "detail": detail}
        for (at, what), (key, who, detail) in sorted(found.items(), reverse=True)
    ]


def register(sources: Sources) -> None:
    """Serve the page at `/ui/devices`."""

    @ui.page("/devices")
    async def devices(request: Request) -> None:
        acting = Acting(request)
        await acting.as_(Role.VIEWER, "looking at devices")
        with frame(sources, acting, "Devices"):
            page = _Page(sources, acting)
            await keep_fresh(page.refresh, REFRESH_S)


class _Page:
    def __init__(self, sources: Sources, acting: Acting) -> None:
        self.control = sources.control
        self.acting = acting
        with ui.element("div").classes("tools"):
            reserve = ui.button("Reserve…", on_click=self.ask_reserve, color=None).classes("main-button")
            reserve.set_enabled(acting.shown.role >= Role.USER)
        self.table = Rows(
            COLUMNS, label="Devices", nothing="No devices yet. Start a worker: fieldstation fleet worker --simulate 4",
            actions=ACTIONS, on_act=self.act, selectable=True, searchable=True,
        )  # fmt: skip
        ui.html("<h2>Workers</h2>", sanitize=False)
        self.workers = Rows(WORKERS, label="Workers", nothing="No worker has called yet.")

    async def refresh(self) -> None:
        who = await self.acting.as_(Role.VIEWER, "looking at devices")
        self.control.must_lead()
        self.table.show(device_rows(wire_rows.all_devices(self.control.index), who))
        workers = wire_rows.all_workers(self.control.index)
        self.workers.show([{"key": w["name"], **{c["name"]: w[c["name"]] for c in WORKERS}} for w in workers])

    async def act(self, action: str, serial: str) -> None:
        if action == "history":
            await self.show_history(serial)
        elif action == "out":
            await self.ask_maintenance(serial)
        elif action in ("extend", "back") or await _sure(action, serial):
            await attempt(self._act(action, serial))
        await self.refresh()

    async def _act(self, action: str, serial: str) -> str:
        who = await self.acting.as_(Role.USER, f"the action {action}")
        reservations, holding = self.control.reservations, self.control.index.holding_of(serial)
        client = holding.lease.holder.client if holding is not None else None
        if action == "extend":
            if client is None:
                raise WebError(f"{serial} is not reserved any more.")
            await reservations.extend(who, client, [serial])
            return f"The reservation of {serial} is extended."
        if action == "back":
            await self.control.care.maintenance(who, serial, False, "")
            return f"{serial} is back in service once its worker has tested it."
        if action == "end":
            done = await reservations.end(who, client, [serial]) if client is not None else []
            return f"The reservation of {serial} has ended." if done else f"{serial} was not reserved by {client}."
        if action == "reboot":
            done = await reservations.reboot(who, [serial])
        elif action == "delete":
            done = await reservations.delete(who, [serial])
        else:
            raise WebError(f"There is no action {action}.")
        if not done:
            raise WebError(f"The worker of {serial} did not accept.")
        return f"{serial} reboots." if action == "reboot" else f"{serial} is deleted."

    async def ask_reserve(self) -> None:
        chosen = list(self.table.selected)
        kinds = sorted(self.control.index.kinds())
        with ui.dialog() as dialog, ui.card().classes("dialog"):
            ui.html("<h2>Reserve devices</h2>", sanitize=False)
            ui.label(f"These: {', '.join(chosen)}" if chosen else "Any that are free; tick rows to choose which.")
            name = ui.input("Client name (your program's)", value=self.acting.shown.user)
            kind = ui.select(kinds, label="Kind", value=kinds[0] if kinds else None)
            amount = ui.number("How many", value=1, min=1, max=1000, precision=0)
            amount.set_visibility(not chosen)

            async def go() -> None:
                count = int(amount.value or 0)
                if await attempt(self._reserve(str(name.value), str(kind.value or ""), count, chosen)):
                    dialog.close()
                    await self.refresh()

            with ui.element("div").classes("tools"):
                ui.button("Reserve", on_click=go, color=None).classes("main-button")
                ui.button("Cancel", on_click=dialog.close, color=None)
        await shown(dialog)

    async def _reserve(self, name: str, kind: str, amount: int, serials: list[str]) -> str:
        who = await self.acting.as_(Role.USER, "reserving devices")
        if not name.strip() or len(name) > 200:
            raise WebError("Give a client name of 1 to 200 characters.")
        if not serials and amount < 1:
            raise WebError("Ask for at least one device.")
        want = Want(Holder(who.user, name.strip()), kind, 0 if serials else amount, tuple(serials), {}, 0)
        taken = await self.control.reservations.reserve(who, want, {})
        return f"Reserved {', '.join(row.serial for row in taken)} for {name.strip()}."

    async def ask_maintenance(self, serial: str) -> None:
        with ui.dialog() as dialog, ui.card().classes("dialog"):
            ui.html("<h2>Take out of service</h2>", sanitize=False)
            ui.label(f"{serial} is offered to nobody until an operator puts it back. A holder keeps it until the end.")
            reason = ui.input("Reason, for the others")

            async def go() -> None:
                if await attempt(self._take_out(serial, str(reason.value))):
                    dialog.close()

            with ui.element("div").classes("tools"):
                ui.button("Take out", on_click=go, color=None).classes("main-button")
                ui.button("Cancel", on_click=dialog.close, color=None)
        await shown(dialog)

    async def _take_out(self, serial: str, reason: str) -> str:
        who = await self.acting.as_(Role.OPERATOR, "taking devices out of service")
        await self.control.care.maintenance(who, serial, True, reason)
        return f"{serial} is out of service."

    async def show_history(self, serial: str) -> None:
        who = await self.acting.as_(Role.VIEWER, "reading the history")
        audit = [e for e in await self.control.history(who, 1000) if serial in e["target"].split(",")]
        steps = await self.control.care.history(who, serial, HISTORY)
        with ui.dialog() as dialog, ui.card().classes("dialog wide"):
            ui.html("<h2>History</h2>", sanitize=False)
            ui.label(serial).classes("code")
            table = Rows(HISTORY_COLUMNS, label=f"History of {serial}", nothing="Nothing has happened to it yet.")
            table.show(history_rows(audit, steps))
            ui.button("Close", on_click=dialog.close, color=None)
        await shown(dialog)


async def _sure(action: str, serial: str) -> bool:
    text = {
        "end": f"End the reservation of {serial}? Its holder loses it at once.",
        "reboot": f"Reboot {serial}? What it evaluates now is lost.",
        "delete": f"Delete {serial}? If it is still plugged in it comes back, freshly flashed.",
    }[action]
    with ui.dialog() as dialog, ui.card().classes("dialog"):
        ui.label(text)
        with ui.element("div").classes("tools"):
            ui.button(action.capitalize(), on_click=lambda: dialog.submit(True), color=None).classes("grave-button")
            ui.button("Cancel", on_click=lambda: dialog.submit(False), color=None)
    return bool(await shown(dialog))
