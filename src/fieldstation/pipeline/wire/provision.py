"""Make on NATS what a plan asks for, and take it away again; what exists and differs is refused, never changed."""

from __future__ import annotations

import logging
from functools import partial

import nats.errors
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, BadRequestError, NotFoundError

from fieldstation.pipeline import names
from fieldstation.pipeline.errors import ConsumerTakenError, StreamTakenError, UnreadMessagesError
from fieldstation.pipeline.plan import ConsumerPlan, Plan, StreamPlan
from fieldstation.pipeline.wire.deadletters import dead_letter_config
from fieldstation.pipeline.wire.patience import patiently
from fieldstation.pipeline.wire.stores import open_bucket

log = logging.getLogger(__name__)

OBJECT_TTL_DAYS = 5


async def provision(
    js: JetStreamContext, plan: Plan, *, replicas: int = 1, ack_wait_s: float = 30.0, url: str = ""
) -> None:
    """Create streams, consumers (before anything can be published), buckets with their values, object stores.

    Existing identical ones are fine. A cluster gets time to elect leaders. A failure takes away again what this call
    made.
    """
    made: list[str] = []
    try:
        for stream in plan.streams:
            await patiently(partial(_stream, js, stream, replicas, made), url)
            await patiently(partial(_add, js, dead_letter_config(stream.name, replicas), made), url)
        for consumer in plan.consumers:
            await patiently(partial(_consumer, js, consumer, ack_wait_s), url)
        for store in plan.object_stores:
            await patiently(partial(_object_store, js, store, replicas, made), url)
        for planned in plan.buckets:
            await patiently(partial(_bucket, js, planned.name, replicas, made), url)
            bucket = await open_bucket(js, planned.name, url)
            for key, value in planned.values.items():
                # A value changed at run time stays; the manager fills in what is not there.
                await bucket.create(key, value)
    except BaseException:
        for name in reversed(made):
            await _delete(js, name)
        raise


async def remove(js: JetStreamContext, plan: Plan, *, purge: bool) -> list[str]:
    """Delete streams, buckets and stores of this version; the product's global bucket stays.

    Without `purge` nothing is deleted while messages are not processed or dead letters wait (UnreadMessagesError).
    """
    if not purge and (count := await unread(js, plan)):
        raise UnreadMessagesError(count=count, product=plan.product)
    wanted = [name for stream in plan.streams for name in (stream.name, names.dead_letter_stream(stream.name))]
    wanted += [f"OBJ_{store}" for store in plan.object_stores]
    wanted += [f"KV_{planned.name}" for planned in plan.buckets if planned.name != names.bucket(plan.product)]
    return [name for name in wanted if await _delete(js, name)]


async def unread(js: JetStreamContext, plan: Plan) -> int:
    """How many messages of the plan's workflows are not acknowledged by everyone who reads them, or are dead."""
    count = 0
    for stream in plan.streams:
        for name in (stream.name, names.dead_letter_stream(stream.name)):
            try:
                info = await js.stream_info(name)
            except NotFoundError:
                continue
            count += info.state.messages
    return count


async def _stream(js: JetStreamContext, plan: StreamPlan, replicas: int, made: list[str]) -> None:
    config = api.StreamConfig(
        name=plan.name, subjects=list(plan.subjects), retention=api.RetentionPolicy.INTEREST, num_replicas=replicas
    )
    try:
        found = await js.stream_info(plan.name)
    except NotFoundError:
        try:
            await _add(js, config, made)
        except BadRequestError as error:
            # Another stream holds some of our subjects.
            raise StreamTakenError(stream=plan.name, difference=error.description or "refused") from error
        return
    difference = ""
    if found.config.retention != api.RetentionPolicy.INTEREST:
        difference = f"its retention is {found.config.retention}"
    elif not set(found.config.subjects or []) >= set(plan.subjects):
        difference = f"it holds the subjects {', '.join(sorted(found.config.subjects or []))}"
    if difference:
        raise StreamTakenError(stream=plan.name, difference=difference)


async def _consumer(js: JetStreamContext, plan: ConsumerPlan, ack_wait_s: float) -> None:
    try:
        found = await js.consumer_info(plan.stream, plan.name)
    except NotFoundError:
        await js.add_consumer(
            plan.stream,
            api.ConsumerConfig(
                durable_name=plan.name,
                deliver_subject=names.deliver_subject(plan.name),
                deliver_group=plan.name,
                filter_subject=plan.subject,
                deliver_policy=api.DeliverPolicy.NEW,
                ack_policy=api.AckPolicy.EXPLICIT,
                ack_wait=ack_wait_s,
            ),
        )
        return
    if found.config.filter_subject != plan.subject or found.config.deliver_group != plan.name:
        raise ConsumerTakenError(
            consumer=plan.name, stream=plan.stream, difference=f"it reads {found.config.filter_subject}"
        )


async def _bucket(js: JetStreamContext, name: str, replicas: int, made: list[str]) -> None:
    try:
        await js.stream_info(f"KV_{name}")
    except NotFoundError:
        await js.create_key_value(bucket=name, history=1, replicas=replicas)
        made.append(f"KV_{name}")


async def _object_store(js: JetStreamContext, name: str, replicas: int, made: list[str]) -> None:
    try:
        await js.stream_info(f"OBJ_{name}")
    except NotFoundError:
        ttl = OBJECT_TTL_DAYS * 86400
        await js.create_object_store(name, api.ObjectStoreConfig(bucket=name, ttl=ttl, replicas=replicas))
        made.append(f"OBJ_{name}")


async def _add(js: JetStreamContext, config: api.StreamConfig, made: list[str]) -> None:
    assert config.name is not None
    try:
        await js.stream_info(config.name)
    except NotFoundError:
        await js.add_stream(config)
        made.append(config.name)


async def _delete(js: JetStreamContext, name: str) -> bool:
    try:
        return await js.delete_stream(name)
    except NotFoundError:
        return False
    except (APIError, nats.errors.Error) as error:
        log.warning("the stream %s was not deleted: %s", name, error)
        return False
