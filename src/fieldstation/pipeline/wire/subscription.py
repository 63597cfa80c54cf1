"""One input on JetStream: the documented push consumer, bound to when it exists, made when it does not."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, NotFoundError

from fieldstation.pipeline import names
from fieldstation.pipeline.errors import ConsumerTakenError
from fieldstation.pipeline.model import Delivery, Origin
from fieldstation.pipeline.wire.deadletters import origin_of, trace_of
from fieldstation.pipeline.wire.patience import patiently

log = logging.getLogger(__name__)

TRIGGER_IDLE_S = 300.0  # a trigger's own consumer ends itself so long after the trigger is gone


class JetStreamSubscription:
    """Hands what its consumer delivers to `deliver`. `shared` consumers belong to all replicas of a process."""

    def __init__(
        self,
        client: Client,
        js: JetStreamContext,
        stream: str,
        subject: str,
        durable: str,
        shared: bool,
        deliver: Callable[[Delivery], None],
        ack_wait_s: float,
        replays: bool = False,
    ) -> None:
        self._client = client
        self._js = js
        self.stream = stream
        self._subject = subject
        self.consumer = durable if shared else f"{durable}-{uuid.uuid4()}"
        self._shared = shared
        self._deliver = deliver
        self._ack_wait_s = ack_wait_s
        self._replays = replays
        self._created = 0
        self._deliver_subject = names.deliver_subject(durable) if shared else self._client.new_inbox()
        self._inner: NatsSubscription | None = None
        self._closed = False

    async def open(self) -> None:
        """Find or make the consumer and listen where it delivers."""
        url = self._client.connected_url.geturl() if self._client.connected_url else ""
        found = await patiently(self._find_or_make, url)
        self._refuse_foreign(found)
        self._deliver_subject = found.config.deliver_subject or self._deliver_subject
        await patiently(self._learn_age, url)
        await self._listen()

    async def _learn_age(self) -> None:
        info = await self._js.stream_info(self.stream)
        self._created = int(info.created.timestamp() * 1e9) if info.created is not None else 0

    async def close(self) -> None:
        """Stop the flow; what the server had sent is delivered before this returns."""
        self._closed = True
        if self._inner is not None and not self._client.is_closed:
            inner, self._inner = self._inner, None
            try:
                async with asyncio.timeout(2):
                    await inner.drain()  # type: ignore[no-untyped-call]  # nats-py types most, not this
            except (nats.errors.Error, TimeoutError) as error:
                log.debug("input %s was not drained: %s", self._subject, error)

    async def remove_own(self) -> None:
        """Delete the consumer when it is this process' alone; a shared one is never deleted."""
        if self._shared:
            return
        try:
            await self._js.delete_consumer(self.stream, self.consumer)
        except (APIError, nats.errors.Error, TimeoutError) as error:
            log.debug("consumer %s was not deleted: %s", self.consumer, error)

    async def check(self) -> None:
        """See that the consumer still exists and still delivers to where we listen; mend both."""
        if self._closed:
            return
        found = await self._find()
        if found is None:
            log.warning("the consumer %s is gone and is made again", self.consumer)
            found = await self._make()
            await self._learn_age()  # the stream may be a new one as well
        if found.config.deliver_subject and found.config.deliver_subject != self._deliver_subject:
            log.warning("the consumer %s delivers elsewhere now; following it", self.consumer)
            self._deliver_subject = found.config.deliver_subject
            old = self._inner
            await self._listen()
            if old is not None:
                await old.unsubscribe()

    async def _listen(self) -> None:
        # Without client-side limits nothing is dropped here; the server's ack-pending limit bounds what arrives.
        self._inner = await self._client.subscribe(
            self._deliver_subject,
            queue=self.consumer if self._shared else "",
            cb=self._arrived,
            pending_msgs_limit=0,
            pending_bytes_limit=0,
        )

    async def _find_or_make(self) -> api.ConsumerInfo:
        return await self._find() or await self._make()

    async def _find(self) -> api.ConsumerInfo | None:
        try:
            found: api.ConsumerInfo = await self._js.consumer_info(self.stream, self.consumer)
        except NotFoundError:
            return None
        return found

    async def _make(self) -> api.ConsumerInfo:
        config = api.ConsumerConfig(
            durable_name=self.consumer,
            deliver_subject=self._deliver_subject,
            deliver_group=self.consumer if self._shared else None,
            filter_subject=self._subject,
            deliver_policy=api.DeliverPolicy.ALL if self._replays else api.DeliverPolicy.NEW,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=self._ack_wait_s,
            inactive_threshold=None if self._shared else TRIGGER_IDLE_S,
        )
        try:
            return await self._js.add_consumer(self.stream, config)
        except APIError:
            # Another replica was quicker with another deliver subject: bind to what it made.
            found = await self._find()
            if found is None:
                raise
            return found

    def _refuse_foreign(self, info: api.ConsumerInfo) -> None:
        config = info.config
        difference = ""
        if not config.deliver_subject:
            difference = "it is a pull consumer"
        elif (config.deliver_group or "") != (self.consumer if self._shared else ""):
            difference = f"its queue group is {config.deliver_group!r}"
        elif config.filter_subject != self._subject:
            difference = f"it reads {config.filter_subject!r}"
        if difference:
            raise ConsumerTakenError(consumer=self.consumer, stream=self.stream, difference=difference)

    async def _arrived(self, msg: Msg) -> None:
        # $JS.ACK.[domain.account.]stream.consumer.deliveries.sequence.consumer-sequence.time.pending[.random]
        tokens = msg.reply.split(".")
        if len(tokens) < 9 or tokens[0] != "$JS":
            return  # not from JetStream: somebody else's message on our deliver subject
        at = 2 if len(tokens) == 9 else 4
        sequence = int(tokens[at + 3])
        origin = origin_of(msg.headers) if self._replays and msg.headers else None
        if origin is None:
            origin = Origin(self.consumer, self._created, sequence, msg.subject)
        trace = trace_of(msg.headers) if msg.headers else ""
        self._deliver(Delivery(msg.data, origin, int(tokens[at + 2]), msg.reply, trace))
