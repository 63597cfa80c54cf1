"""From outside the graph: send one message as a process would, and hear what an exit answers to it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import nats.errors
from google.protobuf.any_pb2 import Any as AnyMessage
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import api
from nats.js.errors import APIError, NotFoundError

from fieldstation.core.log import mask
from fieldstation.pipeline.errors import PublishError, RequestFailedError, StreamMissingError
from fieldstation.pipeline.model import Message, MessageType
from fieldstation.pipeline.names import WorkflowNames, dead_letter_subject
from fieldstation.pipeline.wire import codec

_GONE_AFTER_S = 60.0  # the server deletes our consumer by itself when we were killed
_MAX_INFLATED = 64 << 20


async def ask(
    client: Client, names: WorkflowNames, sender: str, exits: Sequence[str], payload: AnyMessage, *, channel: str = ""
) -> Message:
    """Publish `payload` as `sender` under a new request id; return the first output of one of `exits` with that id.

    It waits as long as it is let. RequestFailedError when the answer is an ERROR message, or when a process gave the
    request up as a dead letter; StreamMissingError when the workflow is not on this server.
    """
    request_id = str(uuid.uuid4())
    body = codec.encode(Message(request_id, payload, "", sender))
    subject = names.output(sender, channel)
    async with _heard(client, names, exits) as heard:
        try:
            await client.jetstream(timeout=10).publish(
                subject, codec.fit(body, client.max_payload, subject), headers={"Nats-Msg-Id": request_id}
            )
        except (APIError, nats.errors.Error, TimeoutError) as refused:
            raise PublishError(subject=subject, problem=str(refused) or type(refused).__name__) from refused
        while True:
            msg = await heard.get()
            if msg.subject.startswith("dead."):
                headers = msg.headers or {}
                if headers.get("Fieldstation-Request-Id") != request_id:
                    continue
                process, error = headers.get("Fieldstation-Process"), headers.get("Fieldstation-Error")
                raise RequestFailedError(text=f"{process} gave it up: {error}")
            answer = codec.decode(msg.data, msg.subject, _MAX_INFLATED)
            if answer.request_id != request_id:
                continue
            if answer.message_type == MessageType.ERROR:
                raise RequestFailedError(text=answer.error)
            return answer


@asynccontextmanager
async def _heard(client: Client, names: WorkflowNames, exits: Sequence[str]) -> AsyncIterator[asyncio.Queue[Msg]]:
    # Exits over a consumer, which survives a cut line; dead letters are only the quicker way to a no.
    queue: asyncio.Queue[Msg] = asyncio.Queue()
    inbox = client.new_inbox()

    async def take(msg: Msg) -> None:
        if msg.reply:
            await msg.ack()
        queue.put_nowait(msg)

    async def take_dead(msg: Msg) -> None:
        queue.put_nowait(msg)

    subscriptions = [
        await client.subscribe(inbox, cb=take),
        await client.subscribe(dead_letter_subject(names.stream, "*"), cb=take_dead),
    ]
    js = client.jetstream(timeout=10)
    config = api.ConsumerConfig(
        deliver_subject=inbox,
        filter_subjects=names.subjects(list(exits)),
        deliver_policy=api.DeliverPolicy.NEW,
        ack_policy=api.AckPolicy.EXPLICIT,
        inactive_threshold=_GONE_AFTER_S,
    )
    try:
        consumer = await js.add_consumer(names.stream, config)
    except NotFoundError as error:
        url = mask(client.connected_url.geturl()) if client.connected_url else "NATS"
        raise StreamMissingError(stream=names.stream, url=url) from error
    try:
        yield queue
    finally:
        with suppress(APIError, nats.errors.Error, TimeoutError, OSError):
            for subscription in subscriptions:
                await subscription.unsubscribe()
            await js.delete_consumer(names.stream, consumer.name)
