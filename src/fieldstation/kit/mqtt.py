"""An MQTT client for asyncio: it reconnects by itself, renews subscriptions, and tells when a message has arrived.

async with MqttClient(MqttSettings(host="broker.lab", will=Message("roof/state", b"gone", 1, retain=True))) as mqtt:
    await mqtt.subscribe("roof/+/set", on_set, qos=1)
    await mqtt.publish("roof/t", b"21.5", qos=1)      # returns when the broker has acknowledged it
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from fieldstation.kit.mqtt_dispatch import Acknowledgements, Handler, Subscription
from fieldstation.kit.mqtt_line import Line
from fieldstation.kit.mqtt_model import (
    Message,
    MqttConnectError,
    MqttError,
    MqttFileError,
    MqttLostError,
    MqttPublishRefusedError,
    MqttRefusedError,
    MqttSettings,
    MqttSubscribeRefusedError,
    MqttTimeoutError,
    MqttTlsError,
    MqttTopicError,
    QoS,
    check_filter,
    check_topic,
    settings_from_environment,
    tls_context,
    topic_matches,
)
from fieldstation.kit.mqtt_suspects import Suspects

__all__ = [
    "Message",
    "MqttClient",
    "MqttConnectError",
    "MqttError",
    "MqttFileError",
    "MqttLostError",
    "MqttPublishRefusedError",
    "MqttRefusedError",
    "MqttSettings",
    "MqttSubscribeRefusedError",
    "MqttTimeoutError",
    "MqttTlsError",
    "MqttTopicError",
    "QoS",
    "settings_from_environment",
    "tls_context",
    "topic_matches",
]

log = logging.getLogger(__name__)

Payload = bytes | bytearray | memoryview | str | None
H = TypeVar("H", bound=Handler)


class MqttClient:
    """A client with a life: `async with`, or `start()` ... `stop()`. Use it from one event loop.

    `async with` waits for the first connection; `start()` does not, so a program may begin without network.
    """

    def __init__(self, settings: MqttSettings | None = None) -> None:
        self.settings = settings if settings is not None else settings_from_environment()
        self.last_error: MqttError | None = None
        self.connects = 0  # how many times a connection was made
        self._line: Line | None = None
        self._online = asyncio.Event()
        self._news = asyncio.Event()  # set after each try, so that whoever waits looks again
        self._life: asyncio.Task[None] | None = None
        self._group: asyncio.TaskGroup | None = None
        self._inflight: asyncio.Semaphore | None = None
        self._subscriptions: list[Subscription] = []
        self._acknowledgements = Acknowledgements()
        self._on_connect: list[Callable[[], Awaitable[None] | None]] = []
        self._on_disconnect: list[Callable[[str], Awaitable[None] | None]] = []

    # -- life

    async def __aenter__(self) -> Self:
        await self.start()
        try:
            await self.wait_connected()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Begin to connect, and to connect again whenever the line breaks; returns at once."""
        if self._life is None:
            self._life = asyncio.create_task(self._live(), name="mqtt")
            await asyncio.sleep(0)

    async def stop(self) -> None:
        """Disconnect (no last will is sent) and end; handlers that still run are cancelled."""
        life, self._life = self._life, None
        if life is not None:
            life.cancel()
            await asyncio.wait([life])
            if not life.cancelled() and (error := life.exception()) is not None:
                log.error("the MQTT client failed: %s", error)

    async def wait_connected(self, timeout_s: float | None = None) -> None:
        """Wait until the broker has accepted us, `connect_timeout_s` by default.

        A refusal or a TLS failure is raised at once, anything else when the time is over. Trying goes on behind.
        """
        timeout_s = self.settings.connect_timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + timeout_s
        while not self._online.is_set():
            if self._life is None or self._life.done():
                raise MqttError(problem="the client was not started, or has been stopped")
            if isinstance(self.last_error, MqttRefusedError | MqttTlsError):
                raise self.last_error
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    self._news.clear()
                    await self._news.wait()
            except TimeoutError:
                host, port = self.settings.address
                problem = f"no answer within {timeout_s:g} s"
                raise self.last_error or MqttConnectError(host=host, port=port, problem=problem) from None

    @property
    def started(self) -> bool:
        """True between `start` and `stop`."""
        return self._life is not None

    @property
    def connected(self) -> bool:
        """True while the broker has accepted us and the line stands."""
        return self._online.is_set()

    @property
    def reached(self) -> bool:
        """True while connected, and while the line breaks only for a message that the broker does not take."""
        searching = self._line is not None and self._suspects.searching
        return self.connected or (searching and isinstance(self.last_error, MqttLostError | None))

    def on_connect(self, callback: Callable[[], Awaitable[None] | None]) -> None:
        """Call `callback()` after every connect, when subscriptions are renewed."""
        self._on_connect.append(callback)

    def on_disconnect(self, callback: Callable[[str], Awaitable[None] | None]) -> None:
        """Call `callback(reason)` every time the line breaks."""
        self._on_disconnect.append(callback)

    # -- sending

    async def publish(
        self,
        topic: str,
        payload: Payload = b"",
        qos: QoS = 0,
        retain: bool = False,
        *,
        timeout_s: float | None = None,
        expiry_s: int | None = None,
        user_properties: tuple[tuple[str, str], ...] = (),
        content_type: str | None = None,
        response_topic: str | None = None,
        correlation_data: bytes | None = None,
    ) -> None:
        """Send, and return when the broker has acknowledged it (QoS 0: when it left this machine).

        Waits while there is no line, and across breaks (QoS 1 may then arrive twice, as MQTT defines), `ack_timeout_s`
        in all by default (`math.inf`: for ever); then MqttTimeoutError. The broker's refusal is
        MqttPublishRefusedError; with MQTT 3.1.1 a broker can only close the line, which is taken for a refusal when
        it does so each time this message (QoS 1) is sent alone.
        """
        data = payload.encode() if isinstance(payload, str) else bytes(payload or b"")
        message = Message(
            check_topic(topic), data, qos, retain, user_properties, content_type, response_topic, correlation_data
        )
        timeout_s = self.settings.ack_timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(None if timeout_s == math.inf else timeout_s):
                await self._send(message, expiry_s)
        except TimeoutError:
            error = MqttTimeoutError(what=f"the message to {topic}", timeout_s=f"{timeout_s:g}")
            raise error from self.last_error

    async def publish_json(self, topic: str, value: Any, qos: QoS = 0, retain: bool = False, **options: Any) -> None:
        """Send `value` as JSON; options as for `publish`."""
        options.setdefault("content_type", "application/json")
        await self.publish(topic, json.dumps(value, allow_nan=False).encode(), qos, retain, **options)

    async def _send(self, message: Message, expiry_s: int | None) -> None:
        while True:
            await self._online.wait()
            slots = self._inflight
            assert slots is not None
            async with slots:
                # The line may have broken, and even come back with another allowance, while we stood in the queue.
                if not self._online.is_set() or slots is not self._inflight or self._line is None:
                    continue
                await self._line.publish(message, expiry_s)
                return

    # -- hearing

    async def subscribe(self, pattern: str, handler: Handler, qos: QoS = 0) -> Subscription:
        """Call `handler(message)` for every message to `pattern` (wildcards `+`, `#`), in order, from now on.

        A coroutine function runs in the loop, a plain function in a thread, so it may block. A message of QoS 1 or 2
        is acknowledged when its handlers have returned. Without a line the broker is asked at the next connect; with
        `clean_session=False` subscribe before `start`, as what waited for us comes with the connection.
        """
        subscription = self._add(pattern, handler, qos)
        try:
            await self._ask([subscription])
        except MqttSubscribeRefusedError:
            self._remove(subscription)
            raise
        return subscription

    async def unsubscribe(self, subscription: Subscription) -> None:
        """End one subscription; the broker is told when it was the last with that pattern."""
        self._remove(subscription)
        still = any(other.pattern == subscription.pattern for other in self._subscriptions)
        if self._online.is_set() and self._line is not None and not still:
            with contextlib.suppress(MqttLostError):
                async with asyncio.timeout(self.settings.ack_timeout_s):
                    await self._line.unsubscribe(subscription.pattern)

    def on(self, pattern: str, qos: QoS = 0) -> Callable[[H], H]:
        """Decorate a handler: `@client.on("lab/+/temperature")`. It is subscribed at the next connect."""

        def decorate(handler: H) -> H:
            if self._online.is_set():
                raise MqttError(problem="`on` decorates before the client connects; use `subscribe` afterwards")
            self._add(pattern, handler, qos)
            return handler

        return decorate

    @asynccontextmanager
    async def messages(self, pattern: str, qos: QoS = 0) -> AsyncIterator[AsyncIterator[Message]]:
        """`async with client.messages("lab/#") as stream: async for message in stream: ...`."""
        arrived: asyncio.Queue[tuple[Message, asyncio.Event]] = asyncio.Queue()

        async def collect(message: Message) -> None:
            taken = asyncio.Event()
            arrived.put_nowait((message, taken))
            await taken.wait()

        async def walk() -> AsyncIterator[Message]:
            while True:
                message, taken = await arrived.get()
                try:
                    yield message
                finally:
                    taken.set()

        subscription = await self.subscribe(pattern, collect, qos)
        try:
            yield walk()
        finally:
            await self.unsubscribe(subscription)

    def _add(self, pattern: str, handler: Handler, qos: QoS) -> Subscription:
        subscription = Subscription(check_filter(pattern), handler, qos, self.settings.max_waiting)
        self._subscriptions.append(subscription)
        if self._group is not None:
            subscription.task = self._group.create_task(subscription.work())
        return subscription

    def _remove(self, subscription: Subscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
        subscription.end()

    async def _ask(self, subscriptions: list[Subscription]) -> None:
        if not self._online.is_set() or self._line is None:
            return
        try:
            async with asyncio.timeout(self.settings.ack_timeout_s):
                await self._line.subscribe([(s.pattern, s.qos) for s in subscriptions])
        except MqttLostError:
            return  # asked again at the next connect
        except TimeoutError:
            what = "the subscription to " + ", ".join(s.pattern for s in subscriptions)
            raise MqttTimeoutError(what=what, timeout_s=f"{self.settings.ack_timeout_s:g}") from None

    def _heard(self, message: Message, acknowledge: Callable[[], None]) -> None:
        matching = [s for s in self._subscriptions if topic_matches(s.pattern, message.topic)]
        done = self._acknowledgements.expect(acknowledge, len(matching)) if message.qos else None
        for subscription in matching:
            subscription.put(message, done)

    # -- the connection

    async def _live(self) -> None:
        self._line = Line(self.settings, self._heard)
        self._suspects = Suspects(self._line)
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for subscription in self._subscriptions:
                    subscription.task = group.create_task(subscription.work())
                await self._stay_connected(self._line)
        finally:
            self._group = None
            self._online.clear()
            await self._line.close()
            self._news.set()

    async def _stay_connected(self, line: Line) -> None:
        failures = 0
        while True:
            try:
                await line.open()
            except MqttError as error:
                self.last_error = error
                self._news.set()
                delay = self.settings.backoff.delay(failures)
                failures += 1
                log.warning("%s Next try in %.1f s.", error, delay)
                await asyncio.sleep(delay)
                continue
            started = time.monotonic()
            reason = await self._connected(line)
            host, port = self.settings.address
            self.last_error = MqttLostError(host=host, port=port, problem=reason)
            log.warning("%s", self.last_error)
            await self._call(self._on_disconnect, reason)
            # A broker that accepts and throws out (two clients with one id) is not hammered either.
            steady = time.monotonic() - started > self.settings.backoff.ceiling_s
            failures = 0 if self._suspects.line_broke() or steady else failures + 1
            await asyncio.sleep(self.settings.backoff.delay(failures - 1) if failures else 0)

    async def _connected(self, line: Line) -> str:
        self.connects += 1
        self.last_error = None
        self._acknowledgements = Acknowledgements()
        self._inflight = asyncio.Semaphore(line.max_inflight)
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(line.lost())
            greeting = group.create_task(self._greet(line))
            reason = await watching
            self._online.clear()
            greeting.cancel()
        return reason

    async def _greet(self, line: Line) -> None:
        # Each pattern by itself: one that the broker refuses must not take the others with it.
        wanted = {s.pattern: s.qos for s in sorted(self._subscriptions, key=lambda s: s.qos)}
        try:
            for pattern, qos in wanted.items():
                try:
                    await line.subscribe([(pattern, qos)])
                except MqttSubscribeRefusedError as error:
                    log.error("%s", error)
            await self._suspects.clear()
            self._online.set()
            self._news.set()
            if self.settings.birth is not None:
                await line.publish(self.settings.birth)
        except MqttLostError:
            return
        await self._call(self._on_connect)

    async def _call(self, callbacks: list[Any], *arguments: object) -> None:
        for callback in tuple(callbacks):
            try:
                result = callback(*arguments)
                if inspect.isawaitable(result):
                    await result
            except Exception:
                log.exception("a connection callback failed")
