"""One paho client driven by the asyncio loop: open the line, send, hear, notice its end. Knows no second try."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import threading
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from fieldstation.kit.mqtt_codec import connect_properties, properties_of, received
from fieldstation.kit.mqtt_model import (
    Message,
    MqttConnectError,
    MqttLostError,
    MqttPublishRefusedError,
    MqttRefusedError,
    MqttSettings,
    MqttSubscribeRefusedError,
    MqttTlsError,
)

log = logging.getLogger(__name__)

_TICK_S = 1.0


class Sent(NamedTuple):
    """A message on its way; the Future ends with the broker's acknowledgement."""

    message: Message
    expiry_s: int | None
    future: asyncio.Future[None]


class Line:
    """A connection that can be opened again after it broke.

    Messages of QoS 1 and 2 that were not acknowledged when it broke are sent again by the next `open`, in order and
    with the same packet ids, so the Futures of `publish` stay valid across breaks.
    """

    def __init__(self, settings: MqttSettings, on_message: Callable[[Message, Callable[[], None]], None]) -> None:
        self._settings = settings
        self._on_message = on_message
        self._loop = asyncio.get_running_loop()
        self._published: dict[int, Sent] = {}
        self._subscribed: dict[int, asyncio.Future[list[ReasonCode]]] = {}
        self._opened: asyncio.Future[None] | None = None
        self._end: asyncio.Future[str] | None = None
        self._writing: int | None = None  # the descriptor the loop watches for room to write
        self._closed = False
        self.max_inflight = settings.max_inflight
        self.acknowledged = 0  # messages, over all connections
        self._paho = self._client()

    def _client(self) -> paho.Client:
        settings = self._settings
        five = settings.version == "5"
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            clean_session=None if five else settings.clean_session,
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = settings.connect_timeout_s
        client.max_inflight_messages = 0  # the caller limits itself to `max_inflight`
        if settings.username is not None:
            client.username_pw_set(settings.username, settings.password)
        if settings.tls is not None:
            client.tls_set_context(settings.tls)
        if (will := settings.will) is not None:
            client.will_set(
                will.topic,
                will.payload,
                will.qos,
                will.retain,
                properties_of(will, PacketTypes.WILLMESSAGE, settings.version),
            )
        client.on_connect = self._heard_connack
        client.on_disconnect = self._heard_end
        client.on_publish = self._heard_puback
        client.on_subscribe = self._heard_suback
        client.on_unsubscribe = self._heard_suback
        client.on_message = self._heard_message
        client.on_socket_open = self._socket_opened
        client.on_socket_close = self._socket_closed
        client.on_socket_register_write = self._wants_to_write
        client.on_socket_unregister_write = self._has_written
        host, port = settings.address
        connect: dict[str, Any] = {}
        if five:
            connect["clean_start"] = settings.clean_session
            connect["properties"] = connect_properties(None if settings.clean_session else settings.session_expiry_s)
        client.connect_async(host, port, keepalive=settings.keepalive_s, **connect)
        return client

    async def open(self) -> None:
        """Connect and wait for the broker's CONNACK; raises MqttConnectError (or a kind of it) with the reason."""
        self._opened = self._loop.create_future()
        self._opened.add_done_callback(_look_at)
        self._end = self._loop.create_future()
        host, port = self._settings.address
        try:
            await self._in_thread(self._paho.reconnect)
            async with asyncio.timeout(self._settings.connect_timeout_s):
                await self._opened
        except ssl.SSLError as error:
            _close_leftover(error)
            problem = getattr(error, "verify_message", "") or error.reason or str(error)
            raise MqttTlsError(host=host, port=port, problem=problem) from error
        except TimeoutError as error:
            self._drop()
            problem = f"no answer within {self._settings.connect_timeout_s:g} s"
            raise MqttConnectError(host=host, port=port, problem=problem) from error
        except (OSError, ValueError) as error:
            problem = getattr(error, "strerror", None) or str(error)
            raise MqttConnectError(host=host, port=port, problem=problem) from error
        except BaseException:
            self._drop()
            raise

    async def lost(self) -> str:
        """Watch over the open line (keep-alive pings included) until it is gone, and say why."""
        assert self._end is not None
        while not self._end.done():
            await asyncio.wait([self._end], timeout=_TICK_S)
            self._paho.loop_misc()
        return self._end.result()

    async def close(self) -> None:
        """Say goodbye (so that no last will is sent) and let the line go; safe at any time."""
        self._closed = True
        if self._end is not None and not self._end.done() and self._paho.is_connected():
            self._paho.disconnect()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await asyncio.wait([self._end])
        self._drop()

    def publish(self, message: Message, expiry_s: int | None = None) -> asyncio.Future[None]:
        """Send; the Future ends with the broker's acknowledgement (QoS 0: when the kernel took it)."""
        properties = properties_of(message, PacketTypes.PUBLISH, self._settings.version, expiry_s)
        future: asyncio.Future[None] = self._loop.create_future()
        info = self._paho.publish(
            message.topic,
            message.payload,
            message.qos,
            message.retain,
            properties,
        )
        if info.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
            future.set_exception(self._lost_error("too many messages wait for an acknowledgement"))
            return future
        self._published[info.mid] = Sent(message, expiry_s, future)
        return future

    @property
    def unacknowledged(self) -> list[Sent]:
        """What is on its way, oldest first, and still awaited by somebody."""
        return [sent for sent in self._published.values() if not sent.future.done()]

    def take_back(self) -> list[Sent]:
        """While the line is down: return what was on its way, which the next `open` then does not send again."""
        taken = self.unacknowledged
        self._published.clear()
        self._paho = self._client()
        return taken

    async def subscribe(self, filters: list[tuple[str, int]]) -> None:
        """Subscribe and wait for the broker's yes; MqttSubscribeRefusedError names the first filter it refuses."""
        if not filters:
            return
        result, mid = self._paho.subscribe(filters)
        codes = await self._answer(result, mid)
        for (pattern, _), code in zip(filters, codes, strict=False):
            if code.is_failure:
                raise MqttSubscribeRefusedError(topic=pattern, problem=code)

    async def unsubscribe(self, pattern: str) -> None:
        """Unsubscribe and wait until the broker has done so."""
        result, mid = self._paho.unsubscribe(pattern)
        await self._answer(result, mid)

    async def _answer(self, result: MQTTErrorCode, mid: int | None) -> list[ReasonCode]:
        if result != MQTTErrorCode.MQTT_ERR_SUCCESS or mid is None:
            raise self._lost_error("not connected")
        future: asyncio.Future[list[ReasonCode]] = self._loop.create_future()
        self._subscribed[mid] = future
        return await future

    # -- what paho calls; all but `_socket_opened` and the first `_wants_to_write` in the loop's thread

    def _heard_connack(
        self,
        client: paho.Client,
        _data: Any,
        flags: paho.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if self._opened is None or self._opened.done():
            return
        if reason.is_failure:
            host, port = self._settings.address
            self._opened.set_exception(MqttRefusedError(host=host, port=port, problem=reason))
            return
        allowed = getattr(properties, "ReceiveMaximum", None)
        self.max_inflight = min(self._settings.max_inflight, allowed or self._settings.max_inflight)
        self._opened.set_result(None)

    def _heard_end(
        self, client: paho.Client, _data: Any, flags: paho.DisconnectFlags, reason: ReasonCode, _properties: Any
    ) -> None:
        by_broker = flags.is_disconnect_packet_from_server
        self._ended(
            f"the broker ended it ({reason})" if by_broker else "the line broke" if reason.is_failure else "closed"
        )

    def _ended(self, problem: str) -> None:
        host, port = self._settings.address
        if self._opened is not None and not self._opened.done():
            problem = "it closed the line without an answer (is a certificate or TLS needed, or refused?)"
            self._opened.set_exception(MqttRefusedError(host=host, port=port, problem=problem))
        if self._end is not None and not self._end.done():
            self._end.set_result(problem)
        error = self._lost_error(problem)
        for mid, sent in list(self._published.items()):
            if sent.message.qos == 0:
                del self._published[mid]
                if not sent.future.done():
                    sent.future.set_exception(error)
        for waiting in self._subscribed.values():
            if not waiting.done():
                waiting.set_exception(error)
        self._subscribed.clear()

    def _heard_puback(
        self, client: paho.Client, _data: Any, mid: int, reason: ReasonCode, _properties: Properties
    ) -> None:
        if mid not in self._published:
            # paho tells of a QoS 0 message from inside publish() when it could write at once.
            return
        message, _, future = self._published.pop(mid)
        self.acknowledged += 1
        if future.done():
            return
        if reason.is_failure:
            future.set_exception(MqttPublishRefusedError(topic=message.topic, problem=reason))
        else:
            future.set_result(None)

    def _heard_suback(
        self, client: paho.Client, _data: Any, mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        if (future := self._subscribed.pop(mid, None)) is not None and not future.done():
            future.set_result(reasons)

    def _heard_message(self, client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        try:
            ours = received(message)
        except UnicodeDecodeError:
            log.warning("a message whose topic is not UTF-8 was ignored")
            self._paho.ack(message.mid, message.qos)
            return
        mid, qos = message.mid, message.qos
        self._on_message(ours, lambda: self._acknowledge(mid, qos))

    def _acknowledge(self, mid: int, qos: int) -> None:
        if qos and self._paho.is_connected():
            self._paho.ack(mid, qos)

    def _socket_opened(self, client: paho.Client, _data: Any, sock: Any) -> None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop.call_soon_threadsafe(self._watch, sock)

    def _watch(self, sock: Any) -> None:
        if self._closed or sock.fileno() < 0:
            sock.close()
            return
        self._loop.add_reader(sock.fileno(), self._read, sock)

    def _read(self, sock: Any) -> None:
        self._paho.loop_read()
        # TLS may hold more than one packet while the socket itself has nothing left to read.
        while isinstance(sock, ssl.SSLSocket) and sock.fileno() >= 0 and sock.pending():
            self._paho.loop_read()

    def _socket_closed(self, client: paho.Client, _data: Any, sock: Any) -> None:
        descriptor = sock.fileno()
        if descriptor >= 0 and not self._loop.is_closed():
            self._loop.remove_reader(descriptor)
            self._loop.remove_writer(descriptor)
        self._writing = None

    def _wants_to_write(self, client: paho.Client, _data: Any, sock: Any) -> None:
        # Written at the end of this turn of the loop: publishes made together leave together.
        self._loop.call_soon_threadsafe(self._write)

    def _write(self) -> None:
        self._paho.loop_write()
        sock = self._paho.socket()
        if sock is not None and self._paho.want_write() and self._writing is None:
            self._writing = sock.fileno()
            self._loop.add_writer(self._writing, self._write)

    def _has_written(self, client: paho.Client, _data: Any, sock: Any) -> None:
        if self._writing is not None and not self._loop.is_closed():
            self._loop.remove_writer(self._writing)
            self._writing = None

    # -- ends

    def _drop(self) -> None:
        if (sock := self._paho.socket()) is not None:
            self._socket_closed(self._paho, None, sock)
            sock.close()
        self._ended("closed")

    def _lost_error(self, problem: str) -> MqttLostError:
        host, port = self._settings.address
        return MqttLostError(host=host, port=port, problem=problem)

    async def _in_thread(self, call: Callable[[], object]) -> None:
        # Name look-up, TCP and TLS block in paho. A daemon thread, so that nobody who stops meanwhile waits for them.
        done: asyncio.Future[None] = self._loop.create_future()

        def finish(error: BaseException | None) -> None:
            if done.cancelled():
                self._drop()
            elif error is not None:
                done.set_exception(error)
            else:
                done.set_result(None)

        def work() -> None:
            failure: BaseException | None = None
            try:
                call()
            except Exception as error:
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop is gone: so is whoever waited
                self._loop.call_soon_threadsafe(finish, failure)

        threading.Thread(target=work, name="mqtt-connect", daemon=True).start()
        await done


def _look_at(future: asyncio.Future[None]) -> None:
    # Nobody awaits the answer of a try that failed earlier; asyncio would call that a forgotten exception.
    if not future.cancelled():
        future.exception()


def _close_leftover(error: ssl.SSLError) -> None:
    # paho forgets to close the socket of a failed handshake; only the traceback still knows it.
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if isinstance(left := frame.f_locals.get("ssl_sock"), ssl.SSLSocket):
            left.close()
