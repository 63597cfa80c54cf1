"""A worker: takes leases from control, puts devices into the state each lease wants, lets only holders command them."""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from fieldstation.core.events import Publisher
from fieldstation.core.security import hash_token
from fieldstation.fleet.delivery import Delivery, Session, watch
from fieldstation.fleet.driver import Driver
from fieldstation.fleet.errors import BadRequestError, DeviceBusyError, UnknownSerialError
from fieldstation.fleet.holding import Held, Holdings
from fieldstation.fleet.hosted import Devices, Hooks, Hosted
from fieldstation.fleet.model import DeviceState
from fieldstation.fleet.refusals import refusal
from fieldstation.fleet.states.care import CareSettings
from fieldstation.fleet.states.device import Item
from fieldstation.fleet.states.lifecycle import fresh
from fieldstation.fleet.states.reservable import Kind, kind
from fieldstation.fleet.worker_store import WorkerStore

log = logging.getLogger(__name__)

TICK_S = 0.5

Report = tuple[str, dict[str, Any]]


class Worker:
    """One worker's logic. It names no protocol: the wire calls its methods and subscribes to `reports`.

    `reports` publishes (event, body) as the line to control has them. All methods are called on the event loop.
    """

    def __init__(
        self,
        name: str,
        drivers: Mapping[str, Driver],
        store: WorkerStore,
        *,
        url: str = "",
        version: str = "",
        kinds: Callable[[str, Driver], tuple[str, ...]] = lambda _, driver: driver.kinds,
        labels: Mapping[str, str] | None = None,
        config: object = None,
        care: CareSettings | None = None,
    ) -> None:
        self.name = name
        self.url = url
        self.version = version
        self.boot = secrets.token_hex(8)
        self.draining = False
        self.draining_began = asyncio.Event()
        self.connected = False  # to control; set by the line
        self.reports: Publisher[Report] = Publisher()
        self._store = store
        self._clock = asyncio.get_running_loop().time
        self._all_kinds = sorted({k for n, d in drivers.items() for k in kinds(n, d)})
        fences, leases, events = store.load(self._clock())
        self.holdings = Holdings(fences)
        self.delivery = Delivery(store, self._clock)
        self.delivery.restore(events)
        for held in leases:
            self.holdings.add(held)
        keep = store.save_out_of_service
        told = self._changed, self._gone, self._posted, self._lost, self._step
        hooks = Hooks(*told, lambda serial, out: watch(keep(serial, out)))
        out = store.load_out_of_service()
        self.devices = Devices(drivers, hooks, kinds=kinds, labels=labels, config=config, care=care, out_of_service=out)
        self._restarted = {serial: held for held in leases for serial in held.fences}
        self._sessions: set[Session] = set()
        self._began = asyncio.Event()  # some lease has begun
        self._ended = asyncio.Event()  # some lease has ended

    async def run(self) -> None:
        """Host devices and watch the clocks until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.devices.run(), name="devices")
            group.create_task(self._tick(), name="leases")

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            now = self._clock()
            for held in self.holdings.expired(now):
                # Control tells the holder; without it, nobody else would.
                self.release(held.id, list(held.fences), "its time is over", tell=not self.connected)
            for held in self.holdings.bury(now):
                self.delivery.forget(held.id)
            self.delivery.sweep()

    # --- what control asks for ---------------------------------------------------------------------------------

    def hello(self) -> dict[str, Any]:
        """Return the wire's `hello`: who we are and what we have."""
        return {
            "name": self.name,
            "url": self.url,
            "version": self.version,
            "boot": self.boot,
            "kinds": self._all_kinds,
            "draining": self.draining,
            "devices": [hosted.body(self._fence(hosted.serial)) for hosted in self.devices.all()],
            "leases": [held.id for held in self.holdings.active()],
        }

    async def reunite(
        self, leases: Iterable[Mapping[str, Any]], out_of_service: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        """After `hello`: take control's word for which leases there are, and which devices are out of service."""
        if out_of_service is not None:
            self.devices.reunite(out_of_service)
        listed = {body["id"]: body for body in leases if isinstance(body.get("id"), str)}
        for held in self.holdings.active():
            wanted = listed.get(held.id, {}).get("fences", {})
            gone = [serial for serial in held.fences if serial not in wanted]
            if gone:
                # Mostly control has told the holder; one whose database was put back knows of no holder to tell.
                self.release(held.id, gone, "control does not know this reservation", tell=True)
        for body in listed.values():
            known = self.holdings.get(body["id"])
            if known is not None and known.ended_at is None and set(body["fences"]) <= set(known.fences):
                self.extend(known.id, body["for_s"])
                continue
            refused = (await self.assign(body))["refused"]
            for serial, reason in refused.items():
                self.reports.publish(("failed", {"lease": body["id"], "serial": serial, "reason": reason}))
        for held in self.holdings.active():
            if self.delivery.sockets(held.id):
                self._presence(held.id)

    async def assign(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Switch a lease's devices to its kind; the answer's `refused` maps serials to reasons.

        The fencing numbers are on disk before anything moves.
        """
        held = Held.parse(body, self._clock())
        wanted = kind(held.kind)
        refused = {}
        for serial, fence in list(held.fences.items()):
            problem = self._unfit(held, serial, fence)
            if problem is not None:
                refused[serial] = problem
                del held.fences[serial]
        if held.fences:
            try:
                await asyncio.wrap_future(self._store.save(held, self._clock()))
            except Exception as error:
                log.exception("the lease could not be stored", extra={"fields": {"lease": held.id}})
                return {"refused": refused | dict.fromkeys(held.fences, f"the worker's store fails: {error}")}
            self._take_up(held, wanted)
        return {"refused": refused}

    def _unfit(self, held: Held, serial: str, fence: int) -> str | None:
        hosted = self.devices.get(serial)
        if hosted is None:
            return "it is not plugged into this worker"
        if fence < self._fence(serial) or (fence == self._fence(serial) and hosted.lease not in (held.id, None)):
            return "stale_fence"
        if held.kind not in hosted.kinds:
            return f"its driver {hosted.driver} does not offer the kind {held.kind}"
        if hosted.state is DeviceState.BROKEN:
            return f"it is broken: {hosted.device.reason}"
        if self.draining and hosted.lease != held.id:
            return "the worker is shutting down"
        return None

    def _take_up(self, held: Held, wanted: Kind) -> None:
        before = self.holdings.get(held.id)
        already = set(before.fences) if before is not None and before.ended_at is None else set()
        if before is not None:
            held.ours = before.ours
            held.fences = {**before.fences, **held.fences}
        for serial in held.fences:
            hosted = self.devices.get(serial)
            if hosted is None or serial in already:
                continue
            if hosted.lease is not None and hosted.lease != held.id:
                self._end(hosted.lease, serial, "somebody else has it by now")
            hosted.begin(wanted, held)
        self.holdings.add(held)
        for session in self._sessions:
            if held.token_hash in session.unknown:
                session.unknown.discard(held.token_hash)
                self._attach(session, held)
        self._began.set()

    def extend(self, lease_id: str, for_s: float) -> None:
        """Let a lease run for `for_s` seconds from now."""
        held = self._active(lease_id)
        held.ends_at = self._clock() + float(for_s)
        watch(self._store.save(held, self._clock()))

    def release(self, lease_id: str, serials: Iterable[str], reason: str, *, tell: bool = False) -> None:
        """End a lease on these devices: finished results are delivered, the default firmware comes back. With `tell`
        the holder hears of it from us."""
        held = self.holdings.get(lease_id)
        for serial in serials:
            if tell and held is not None and serial in held.fences:
                item = {"event": "reservation end", "reason": reason, "fence": held.fences[serial]}
                self.delivery.post(lease_id, serial, [item])
            self._end(lease_id, serial, reason)
            hosted = self.devices.get(serial)
            if hosted is not None and hosted.lease == lease_id:
                hosted.machine.become(functools.partial(self._reset, hosted, hosted.turn), blocking=False)
            elif hosted is not None:
                # Given up here before control did: it took for reserved what was reported since, so it hears it again.
                self.reports.publish(("device", hosted.body(self._fence(serial))))

    def _reset(self, hosted: Hosted, turn: int) -> Any:
        # Only now, when the old state has handed over its last results, they stop being the lease's. Unless it has
        # begun again meanwhile, even the same one: control may list a lease that has just run out here.
        if hosted.turn == turn:
            hosted.lease = None
        return fresh(hosted.device)

    def _end(self, lease_id: str, serial: str, reason: str) -> None:
        held = self.holdings.get(lease_id)
        if held is None:
            return
        self.holdings.release(held, serial, reason, self._clock())
        self.delivery.silence(lease_id, serial)
        self._ended.set()
        watch(self._store.save(held, self._clock()))

    def reboot(self, serial: str) -> None:
        """Ask the device's state to recover, in the background."""
        self._hosted(serial).machine.reboot()

    def delete(self, serial: str) -> None:
        """Forget a device; when it is still plugged in it is taken up and flashed anew. Its holder hears `failure`."""
        hosted = self._hosted(serial)
        if hosted.lease is not None:
            self._lost(hosted, "it was deleted")
        self.devices.begin_again(hosted)

    def drain(self) -> None:
        """Take no new reservations."""
        if not self.draining:
            self.draining = True
            self.draining_began.set()
            self.reports.publish(("draining", {}))

    async def drained(self) -> None:
        """Wait until a drain has begun and nobody holds anything here any more."""
        await self.draining_began.wait()
        while self.holdings.active():
            self._ended.clear()
            await self._ended.wait()

    def reserve_here(self, serial: str, kind_name: str, args: Mapping[str, Any]) -> tuple[Held, str]:
        """Lease an available device to whoever asks on the worker itself; returns the lease and its token."""
        hosted = self._hosted(serial)
        if hosted.state is not DeviceState.AVAILABLE or self.draining:
            reason = "the worker is shutting down" if self.draining else f"it is {hosted.state}"
            raise DeviceBusyError(serials=serial, reason=reason)
        wanted = kind(kind_name)
        if kind_name not in hosted.kinds:
            raise BadRequestError(field="kind", problem=f"{serial} does not offer {kind_name}")
        held, token = Held.local(serial, self._fence(serial) + 1, kind_name, args, self._clock())
        watch(self._store.save(held, self._clock()))
        self._take_up(held, wanted)
        return held, token

    # --- what clients ask for ----------------------------------------------------------------------------------

    def open(self, session: Session) -> None:
        """A socket came."""
        self._sessions.add(session)

    def close(self, session: Session) -> None:
        """A socket went."""
        self._sessions.discard(session)
        self.delivery.detach(session)
        for lease_id in session.leases:
            self._presence(lease_id)

    def present(self, session: Session, token: str) -> bool:
        """A socket shows a lease token. False: we do not know it (yet; control may be about to tell us)."""
        token_hash = hash_token(token)
        held = self.holdings.by_hash(token_hash)
        if held is None:
            session.unknown.add(token_hash)
            return False
        self._attach(session, held)
        return True

    async def expect(self, session: Session, token: str, patience_s: float) -> bool:
        """Wait until control tells us about a lease that was presented too early; False when it does not."""
        token_hash = hash_token(token)
        try:
            async with asyncio.timeout(patience_s):
                while token_hash in session.unknown:
                    self._began.clear()
                    await self._began.wait()
        except TimeoutError:
            return False
        return True

    def _attach(self, session: Session, held: Held) -> None:
        if held.ours != session.ours:
            held.ours = session.ours
            if held.ended_at is None:
                watch(self._store.save(held, self._clock()))
        self.delivery.attach(session, held.id)
        self._presence(held.id)

    def _presence(self, lease_id: str) -> None:
        held = self.holdings.get(lease_id)
        if held is not None and held.ended_at is None:
            self.reports.publish(("presence", {"lease": lease_id, "sockets": self.delivery.sockets(lease_id)}))

    def request(self, session: Session, serial: str, event: str, contents: Mapping[str, Any]) -> None:
        """Hand a client's command to the device's state; raises LeaseRefusedError or BadRequestError."""
        held = self.holdings.check(session.leases, serial, self._clock())
        hosted = self.devices.get(serial)
        if hosted is None:
            raise UnknownSerialError(serials=serial)
        if hosted.lease != held.id:
            raise DeviceBusyError(serials=serial, reason="its worker was restarted and has not taken it up yet")
        self.delivery.answered(held.id, serial)
        hosted.machine.request(event, contents, lambda error: self.refuse(session, serial, error))

    def refuse(self, session: Session, serial: str, error: Exception) -> None:
        """Tell a client that its command was not carried out."""
        session.send(refusal(serial, error), lambda: None)

    # --- what devices tell -------------------------------------------------------------------------------------

    def _changed(self, hosted: Hosted) -> None:
        body = hosted.body(self._fence(hosted.serial))
        news = tuple(map(str, body.values()))
        if news != hosted.reported:
            hosted.reported = news
            self.reports.publish(("device", body))
        self._take_back(hosted)

    def _take_back(self, hosted: Hosted) -> None:
        """Put a device back into the lease it served before this process was restarted."""
        held = self._restarted.get(hosted.serial)
        if held is None or hosted.lease is not None:
            return
        del self._restarted[hosted.serial]
        if held.ended_at is not None or hosted.serial not in held.fences:
            return
        if held.ours is False:
            # Today's clients send nothing twice; what they had sent is lost, and they would wait for it for ever.
            hosted.lease = held.id
            self._lost(hosted, "the worker was restarted")
        else:
            hosted.begin(kind(held.kind), held)

    def _step(self, serial: str, step: str, detail: str) -> None:
        at = datetime.now(UTC).isoformat()
        self.reports.publish(("step", {"serial": serial, "step": step, "detail": detail, "at": at}))

    def _gone(self, hosted: Hosted) -> None:
        self.reports.publish(("gone", {"serial": hosted.serial}))

    def _posted(self, hosted: Hosted, items: list[Item]) -> None:
        if hosted.lease is None:
            return
        rest = [item for item in items if item["event"] != "initialized"]
        if rest:
            self.delivery.post(hosted.lease, hosted.serial, rest)
        if len(rest) < len(items):
            self.delivery.initialized(hosted.lease, hosted.serial)
        self._changed(hosted)

    def _lost(self, hosted: Hosted, reason: str) -> None:
        lease_id, hosted.lease = hosted.lease, None
        if lease_id is not None:
            held = self.holdings.get(lease_id)
            fence = held.fences.get(hosted.serial, 0) if held is not None else 0
            self.delivery.post(lease_id, hosted.serial, [{"event": "failure", "reason": reason, "fence": fence}])
            self.reports.publish(("failed", {"lease": lease_id, "serial": hosted.serial, "reason": reason}))
            self._end(lease_id, hosted.serial, reason)

    # --- small things ------------------------------------------------------------------------------------------

    def _fence(self, serial: str) -> int:
        return self.holdings.fences.get(serial, 0)

    def _hosted(self, serial: str) -> Hosted:
        hosted = self.devices.get(serial)
        if hosted is None:
            raise UnknownSerialError(serials=serial)
        return hosted

    def _active(self, lease_id: str) -> Held:
        held = self.holdings.get(lease_id)
        if held is None or held.ended_at is not None:
            raise BadRequestError(field="lease", problem=f"there is no lease {lease_id} here")
        return held
