"""The worker's end of the line to control: dial, say hello, report, obey, and dial again for as long as it lives."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import aiohttp
import socketio
from socketio import exceptions

from fieldstation.core import log as logs
from fieldstation.core.errors import FieldstationError
from fieldstation.core.retry import Backoff
from fieldstation.fleet.errors import BadRequestError, FleetError
from fieldstation.fleet.refusals import acknowledgement
from fieldstation.fleet.wire.leader_watch import until_another_leads
from fieldstation.fleet.worker import Report, Worker

log = logging.getLogger(__name__)

NAMESPACE = "/worker"
CALL_S = 10.0
LOG_EVERY_S = 1.0
LOG_BATCH = 500
_LASTING = frozenset({"failed", "step"})  # what a new hello does not say; everything else it does
STEPS_KEPT = 1000  # lines of devices' histories that wait for control; the oldest fall out


class LineError(FleetError):
    """Control at {url} does not take this worker: {problem}"""


class ControlLine:
    """Keeps one line to whichever of `urls` is the leading control."""

    def __init__(self, worker: Worker, urls: Sequence[str], *, token: str | None = None, backlog: LogBacklog) -> None:
        self._worker = worker
        self._urls = list(urls)
        self._token = token
        self._logs = backlog
        self._reports: deque[Report] = deque()
        self._news = asyncio.Event()
        self._order = asyncio.Lock()  # control's commands are carried out one after another, in their order
        self._complaint = ""
        self._takes_steps = True
        worker.reports.subscribe(self._report)

    def _report(self, report: Report) -> None:
        if self._worker.connected or report[0] in _LASTING:
            self._reports.append(report)
            self._news.set()
            if report[0] == "step" and len(self._reports) > STEPS_KEPT:
                self._drop_a_step()

    def _drop_a_step(self) -> None:
        # Never the first one: it may be on its way.
        old = next((n for n, report in enumerate(self._reports) if n and report[0] == "step"), None)
        if old is not None:
            del self._reports[old]

    async def run(self) -> None:
        """Hold the line until cancelled."""
        # Of several controls one leads within seconds, and holders wait for it.
        backoff = Backoff(initial_s=0.1, ceiling_s=5.0 if len(self._urls) == 1 else 0.5)
        attempt = 0
        while True:
            for url in self._urls:
                try:
                    await self._hold(url)
                except (LineError, exceptions.SocketIOError, OSError, TimeoutError) as error:
                    self._complain(url, error)
                if self._worker.connected:
                    attempt = 0
                self._worker.connected = False
            await asyncio.sleep(backoff.delay(attempt))
            attempt += 1

    def _complain(self, url: str, error: Exception) -> None:
        # Once for each new reason: a control that is down for a night is one line in the log.
        text = f"no line to control at {url}: {str(error) or type(error).__name__}"
        if text != self._complaint:
            self._complaint = text
            log.warning("%s; trying again", text)

    async def _hold(self, url: str) -> None:
        client = socketio.AsyncClient(reconnection=False, handle_sigint=False)
        lost = asyncio.Event()
        client.on("disconnect", lambda *_: lost.set(), namespace=NAMESPACE)
        refusals: list[object] = []
        client.on("connect_error", lambda *reason: refusals.extend(reason), namespace=NAMESPACE)
        for event, act in self._commands().items():
            client.on(event, self._obey(event, act), namespace=NAMESPACE)
        auth = {"worker": self._worker.name} | ({"token": self._token} if self._token else {})
        try:
            try:
                await client.connect(
                    url, namespaces=[NAMESPACE], auth=auth, transports=["websocket"], wait_timeout=CALL_S
                )
            except exceptions.ConnectionError as error:
                raise LineError(url=url, problem=_reason(refusals) or error) from error
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._talk(client, url))]
                if len(self._urls) > 1:
                    tasks.append(group.create_task(self._watch_leader(url, lost)))
                await lost.wait()
                for task in tasks:
                    task.cancel()
            if self._complaint == "":
                log.warning("the line to control at %s is lost", url)
        except* (LineError, exceptions.SocketIOError, OSError, TimeoutError) as several:
            raise _innermost(several) from None
        finally:
            with_deadline = asyncio.timeout(2)
            try:
                async with with_deadline:
                    await client.disconnect()
            except (TimeoutError, exceptions.SocketIOError, OSError):
                log.debug("the line did not close in order", exc_info=True)

    async def _watch_leader(self, url: str, lost: asyncio.Event) -> None:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        async with aiohttp.ClientSession() as session:
            other = await until_another_leads(session, url, [(one, headers) for one in self._urls])
        log.warning("the control at %s leads by now, not the one at %s", other, url)
        lost.set()

    async def _talk(self, client: socketio.AsyncClient, url: str) -> None:
        try:
            # Reports made from here on are newer than the hello; what waits from before is in it.
            lasting = [report for report in self._reports if report[0] in _LASTING]
            self._reports = deque(lasting)
            self._worker.connected = True
            async with self._order:
                answer = await self._call(client, "hello", self._worker.hello())
                if "error" in answer:
                    self._worker.connected = False
                    raise LineError(url=url, problem=_reason([answer["error"]]))
                await self._worker.reunite(answer.get("leases", []), answer.get("out_of_service"))
                self._takes_steps = "out_of_service" in answer  # an older control would leave them unanswered
            log.info("connected to control at %s", url)
            self._complaint = ""
            beat_s = float(answer.get("beat_s") or 5.0)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send_reports(client))
                group.create_task(self._beat(client, url, beat_s))
                group.create_task(self._send_logs(client))
        except (exceptions.SocketIOError, TimeoutError):
            await client.disconnect()
            raise

    async def _call(self, client: socketio.AsyncClient, event: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        # Not the library's call(): it waits with asyncio.wait_for, which before Python 3.12 can lose a cancellation.
        answered: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        def acknowledge(*told: object) -> None:
            if not answered.done():
                answered.set_result(told[0] if told else None)

        async with asyncio.timeout(CALL_S):
            await client.emit(event, dict(body), namespace=NAMESPACE, callback=acknowledge)
            answer = await answered
        return answer if isinstance(answer, Mapping) else {}

    async def _send_reports(self, client: socketio.AsyncClient) -> None:
        while True:
            while self._reports:
                event, body = self._reports[0]
                if event == "step" and not self._takes_steps:
                    self._reports.popleft()
                    continue
                answer = await self._call(client, event, body)
                if "error" in answer:
                    log.warning("control refuses %s: %s", event, _reason([answer["error"]]))
                self._reports.popleft()
            self._news.clear()
            await self._news.wait()

    async def _beat(self, client: socketio.AsyncClient, url: str, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            answer = await self._call(client, "beat", {})
            if "error" in answer:  # control listens to another line of this name
                raise LineError(url=url, problem=_reason([answer["error"]]))

    async def _send_logs(self, client: socketio.AsyncClient) -> None:
        while True:
            await asyncio.sleep(LOG_EVERY_S)
            while batch := self._logs.peek(LOG_BATCH):
                await self._call(client, "log", {"logs": batch})
                self._logs.drop(len(batch))

    def _commands(self) -> dict[str, Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any] | None]]]:
        worker = self._worker

        async def extend(body: Mapping[str, Any]) -> None:
            worker.extend(body["lease"], float(body["for_s"]))

        async def release(body: Mapping[str, Any]) -> None:
            worker.release(body["lease"], list(body["serials"]), str(body.get("reason", "")))

        async def reboot(body: Mapping[str, Any]) -> None:
            worker.reboot(body["serial"])

        async def delete(body: Mapping[str, Any]) -> None:
            worker.delete(body["serial"])

        async def drain(body: Mapping[str, Any]) -> None:
            worker.drain()

        async def service(body: Mapping[str, Any]) -> None:
            worker.devices.set_service(body["serial"], body.get("health"), str(body.get("reason", "")))

        return {
            "assign": worker.assign,
            "extend": extend,
            "release": release,
            "reboot": reboot,
            "delete": delete,
            "drain": drain,
            "service": service,
        }

    def _obey(self, event: str, act: Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any] | None]]) -> Any:
        async def handle(body: object = None) -> Mapping[str, Any]:
            try:
                if not isinstance(body, Mapping):
                    raise BadRequestError(field="argument", problem="it must be an object")
                async with self._order:
                    answer = await act(body)
            except (FieldstationError, KeyError, TypeError, ValueError) as error:
                log.warning("control's %s is refused: %s", event, error)
                return acknowledgement(error)
            return {"ok": True, **(answer or {})}

        return handle


def _innermost(error: BaseException) -> BaseException:
    # A group in the group: what is said on a line that stands is said by tasks of their own.
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _reason(told: Sequence[object]) -> str:
    for one in told:
        if isinstance(one, Mapping):
            return str(one.get("message") or one.get("code") or one)
        if one:
            return str(one)
    return ""


class LogBacklog(logging.Handler):
    """Log records that control has not got yet; beyond `limit` the oldest are dropped."""

    def __init__(self, limit: int = 5000) -> None:
        super().__init__(logging.INFO)
        self._lines: deque[list[Any]] = deque(maxlen=limit)
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record, masked."""
        if record.name.startswith(__name__):
            return  # about the line itself: control has its own view of it
        if len(self._lines) == self._lines.maxlen:
            self._dropped += 1
        fields = {**logs.current_context(), **getattr(record, "fields", {})}
        line: list[Any] = [record.levelno, logs.mask(record.getMessage())]
        self._lines.append([*line, {key: logs.mask(str(value)) for key, value in fields.items()}] if fields else line)

    def peek(self, most: int) -> list[list[Any]]:
        """Return the oldest lines."""
        self._dropped = 0
        return [self._lines[n] for n in range(min(most, len(self._lines)))]

    def drop(self, count: int) -> None:
        """Forget as many as control has confirmed; those that fell out meanwhile are counted off."""
        for _ in range(min(count - self._dropped, len(self._lines))):
            self._lines.popleft()
