"""The bus on NATS JetStream: documented push consumers, bound to what exists, made where it does not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import APIError, NotFoundError

from fieldstation.core.log import mask
from fieldstation.pipeline import names
from fieldstation.pipeline.bus import Bucket, Confirm, Objects, Subscription
from fieldstation.pipeline.config import Nats
from fieldstation.pipeline.errors import BrokerError, StreamMissingError
from fieldstation.pipeline.model import Counts, Delivery
from fieldstation.pipeline.wire.connection import connect, require_jetstream
from fieldstation.pipeline.wire.deadletters import ensure_dead_letters, letter_headers
from fieldstation.pipeline.wire.patience import patiently
from fieldstation.pipeline.wire.publisher import Publisher
from fieldstation.pipeline.wire.stores import open_bucket, open_objects
from fieldstation.pipeline.wire.subscription import JetStreamSubscription

log = logging.getLogger(__name__)

WATCH_S = 10.0  # between looks at whether our consumers are still there and still ours


class JetStreamBus:
    """Messages over JetStream. `start` connects, `run` keeps it going, `close` lets go.

    It reconnects by itself; `run` ends with an error when the connection is closed for good.
    """

    def __init__(self, settings: Nats, *, name: str, ack_wait_s: float, counts: Counts) -> None:
        self._settings = settings
        self._name = name
        self._ack_wait_s = ack_wait_s
        self._counts = counts
        self._url = mask(settings.url)
        self._subscriptions: list[JetStreamSubscription] = []
        self._check = asyncio.Event()
        self._closing = False
        self._max_bytes = 1024 * 1024
        self._client = Client()  # replaced by a connected one in start()
        self._started = False
        self._publisher: Publisher
        self._js: JetStreamContext
        self.dead_letters = False
        self._work: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect and see that JetStream and the workflow's stream are there."""
        self._client = await connect(
            self._settings, name=self._name, on_up=self._on_up, on_down=self._on_down, on_closed=self._on_closed
        )
        self._started = True
        await require_jetstream(self._client, self._settings.url)
        self._js = self._client.jetstream(timeout=5)
        self._publisher = Publisher(self._client, self._counts)
        await self._publisher.start()
        await self._refresh_limit()
        # Not in the caller's task group: an initializer may send before run(), and stop() sends after it.
        self._work = asyncio.create_task(self._everything())

    async def run(self) -> None:
        """Wait for the end of the work that `start` began: only a connection that is lost for good ends it."""
        if self._work is not None:
            await asyncio.shield(self._work)

    async def _everything(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._publisher.run())
            group.create_task(self._watch())

    @property
    def connected(self) -> bool:
        """True while messages can flow."""
        return self._client.is_connected

    @property
    def limit(self) -> int:
        """How many bytes a message may have: the server's limit, or the stream's when that is smaller."""
        return self._max_bytes

    @property
    def client(self) -> Client:
        """The NATS connection, for tools beside the runner."""
        return self._client

    def send(
        self, subject: str, body: bytes, message_id: str, done: Confirm, headers: Mapping[str, str] | None = None
    ) -> None:
        """See Bus.send."""
        self._publisher.send(subject, body, message_id, done, headers)

    def send_dead_letter(self, process: str, delivery: Delivery, request_id: str, error: str, done: Confirm) -> None:
        """See Bus.send_dead_letter; without a dead-letter stream (no rights) the letter is only logged."""
        if not self.dead_letters:
            log.error("no dead-letter stream: the message %s is not kept", delivery.origin)
            asyncio.get_running_loop().call_soon(done, None)
            return
        origin = delivery.origin
        subject = names.dead_letter_subject(self._settings.stream, process)
        message_id = (
            f"dead:{names.message_id(process, origin.consumer, origin.created, origin.sequence, '', 0, origin.replay)}"
        )
        self._publisher.send(
            subject, delivery.body, message_id, done, letter_headers(process, delivery, request_id, error)
        )

    def acknowledge(self, delivery: Delivery) -> None:
        """See Bus.acknowledge."""
        self._publisher.post(delivery.reply, b"+ACK")

    def hand_back(self, delivery: Delivery, delay_s: float = 0) -> None:
        """See Bus.hand_back."""
        body = b'-NAK {"delay": %d}' % int(delay_s * 1e9) if delay_s else b"-NAK"
        self._publisher.post(delivery.reply, body)

    def in_progress(self, delivery: Delivery) -> None:
        """See Bus.in_progress."""
        self._publisher.post(delivery.reply, b"+WPI")

    async def subscribe(
        self, subject: str, durable: str, *, shared: bool, deliver: Callable[[Delivery], None]
    ) -> Subscription:
        """See Bus.subscribe. Binds to the consumer of that name when there is one, and never changes it."""
        stream = await self._stream_of(subject)
        subscription = JetStreamSubscription(
            self._client, self._js, stream, subject, durable, shared, deliver, self._ack_wait_s
        )
        await subscription.open()
        self._subscriptions.append(subscription)
        return subscription

    async def subscribe_replays(self, process: str, deliver: Callable[[Delivery], None]) -> Subscription:
        """See Bus.subscribe_replays; makes the dead-letter stream when it is missing."""
        stream = names.dead_letter_stream(self._settings.stream)
        try:
            await patiently(lambda: ensure_dead_letters(self._js, self._settings.stream), self._url)
        except (BrokerError, APIError, nats.errors.Error) as error:
            log.warning("dead letters are off: the stream %s cannot be made (%s)", stream, error)
            return _Nothing()
        self.dead_letters = True
        subject = names.replay_subject(self._settings.stream, process)
        durable = f"{stream}-{process}"
        subscription = JetStreamSubscription(
            self._client, self._js, stream, subject, durable, True, deliver, self._ack_wait_s, replays=True
        )
        await subscription.open()
        self._subscriptions.append(subscription)
        return subscription

    async def bucket(self, name: str) -> Bucket:
        """See Bus.bucket."""
        return await open_bucket(self._js, name, self._url)

    async def objects(self, name: str) -> Objects:
        """See Bus.objects."""
        return await open_objects(self._js, name, self._url)

    async def flush(self) -> None:
        """See Bus.flush."""
        await self._publisher.flush()

    async def close(self) -> None:
        """Delete a trigger's own consumers, then close the connection."""
        self._closing = True
        if not self._started:
            return
        if self._client.is_connected:
            for subscription in self._subscriptions:
                await subscription.remove_own()
        await self._client.close()
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)

    async def _stream_of(self, subject: str) -> str:
        try:
            return await patiently(lambda: self._js.find_stream_name_by_subject(subject), self._url)
        except NotFoundError as error:
            raise StreamMissingError(
                f"No stream on {self._url} holds the input {subject}. Start the pipeline first "
                "(`fieldstation pipeline up krt.yaml`), or correct nats.inputs."
            ) from error
        except nats.errors.Error as error:
            raise BrokerError(url=self._url, problem=str(error) or "no answer") from error

    async def _refresh_limit(self) -> None:
        try:
            info = await patiently(lambda: self._js.stream_info(self._settings.stream), self._url)
        except NotFoundError as error:
            raise StreamMissingError(stream=self._settings.stream, url=self._url) from error
        own = info.config.max_msg_size
        server = self._client.max_payload
        self._max_bytes = min(server, own) if own is not None and own > 0 else server

    async def _on_up(self) -> None:
        self._counts.reconnects += 1
        log.info("connected to NATS again")
        self._publisher.up()
        self._check.set()

    async def _on_down(self) -> None:
        if not self._closing:
            log.warning("the connection to NATS is gone; trying again")
        if hasattr(self, "_publisher"):
            self._publisher.down()

    async def _on_closed(self) -> None:
        self._check.set()

    async def _watch(self) -> None:
        while True:
            try:
                async with asyncio.timeout(WATCH_S):
                    await self._check.wait()
            except TimeoutError:
                pass
            self._check.clear()
            if self._client.is_closed and not self._closing:
                raise BrokerError(url=self._url, problem="the server closed the connection for good")
            if not self._client.is_connected:
                continue
            for subscription in self._subscriptions:
                try:
                    await subscription.check()
                except (APIError, nats.errors.Error, TimeoutError) as error:
                    log.debug("could not look at consumer %s: %s", subscription.consumer, error)


class _Nothing:
    """An input that never has messages."""

    async def close(self) -> None:
        """Nothing to take, nothing to end."""
