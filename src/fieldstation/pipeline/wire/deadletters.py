"""Dead letters: what a process gave up on, kept with the reason, listed, and put back for that process alone."""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nats.js import JetStreamContext, api
from nats.js.errors import NotFoundError

from fieldstation.pipeline import names
from fieldstation.pipeline.errors import DeadLetterNotFoundError
from fieldstation.pipeline.model import Delivery, Origin

_PREFIX = "Fieldstation-"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message that was given up. `number` is its sequence in the dead-letter stream; `replay` how often it was
    put back before it failed again."""

    number: int
    process: str
    subject: str
    request_id: str
    error: str
    at: datetime.datetime
    deliveries: int
    replay: int
    size: int
    body: bytes


def dead_letter_config(stream: str, replicas: int) -> api.StreamConfig:
    """One work queue per workflow: dead letters stay until deleted, replays until their process has handled them."""
    return api.StreamConfig(
        name=names.dead_letter_stream(stream),
        subjects=[names.dead_letter_subject(stream, "*"), names.replay_subject(stream, "*")],
        retention=api.RetentionPolicy.WORK_QUEUE,
        num_replicas=replicas,
    )


async def ensure_dead_letters(js: JetStreamContext, stream: str) -> None:
    """Make the stream that keeps dead letters and replays of `stream`, with as many replicas as that has."""
    name = names.dead_letter_stream(stream)
    try:
        await js.stream_info(name)
    except NotFoundError:
        info = await js.stream_info(stream)
        await js.add_stream(dead_letter_config(stream, info.config.num_replicas or 1))


def letter_headers(process: str, delivery: Delivery, request_id: str, error: str) -> dict[str, str]:
    """What is remembered beside the body: where it came from, so that a replay makes outputs with its own ids."""
    origin = delivery.origin
    values = {
        "Process": process,
        "Consumer": origin.consumer,
        "Created": str(origin.created),
        "Sequence": str(origin.sequence),
        "Subject": origin.subject,
        "Replay": str(origin.replay),
        "Request-Id": request_id,
        "Error": " ".join(error.split())[:2000],
        "Deliveries": str(delivery.deliveries),
        "At": f"{time.time():.3f}",
        "Trace": delivery.trace,
    }
    return {_PREFIX + key: value for key, value in values.items() if value}


def origin_of(headers: Mapping[str, str]) -> Origin | None:
    """Read the origin of a replayed message; None for any other message."""
    try:
        return Origin(
            headers[_PREFIX + "Consumer"],
            int(headers[_PREFIX + "Created"]),
            int(headers[_PREFIX + "Sequence"]),
            headers[_PREFIX + "Subject"],
            int(headers[_PREFIX + "Replay"]),
        )
    except (KeyError, ValueError):
        return None


def trace_of(headers: Mapping[str, str]) -> str:
    """The `traceparent` a message came with, also when it is a replay."""
    return headers.get("traceparent") or headers.get(_PREFIX + "Trace", "")


async def dead_letters(js: JetStreamContext, stream: str, process: str = "*") -> list[DeadLetter]:
    """Return the dead letters of a workflow, oldest first; empty when nothing was ever given up."""
    found: list[DeadLetter] = []
    subject = names.dead_letter_subject(stream, process)
    number = 1
    while True:
        try:
            raw = await js.get_msg(names.dead_letter_stream(stream), seq=number, subject=subject, next=True)
        except NotFoundError:
            return found
        found.append(_letter(raw))
        number = (raw.seq or 0) + 1


async def dead_letter(js: JetStreamContext, stream: str, number: int) -> DeadLetter:
    """Return one dead letter."""
    try:
        raw = await js.get_msg(names.dead_letter_stream(stream), seq=number)
    except NotFoundError as error:
        raise DeadLetterNotFoundError(number=number, stream=stream) from error
    if not (raw.subject or "").startswith(names.dead_letter_subject(stream, "")):
        raise DeadLetterNotFoundError(number=number, stream=stream)
    return _letter(raw)


async def replay(js: JetStreamContext, stream: str, number: int) -> DeadLetter:
    """Put a dead letter back for its process, then remove it from the dead letters."""
    letter = await dead_letter(js, stream, number)
    raw = await js.get_msg(names.dead_letter_stream(stream), seq=number)
    headers = {key: value for key, value in (raw.headers or {}).items() if key.startswith(_PREFIX)}
    headers[_PREFIX + "Replay"] = str(letter.replay + 1)
    headers["Nats-Msg-Id"] = f"replay:{number}:{letter.replay + 1}"
    await js.publish(names.replay_subject(stream, letter.process), letter.body, headers=headers)
    await js.delete_msg(names.dead_letter_stream(stream), number)
    return letter


async def discard(js: JetStreamContext, stream: str, number: int) -> DeadLetter:
    """Delete a dead letter for good."""
    letter = await dead_letter(js, stream, number)
    await js.delete_msg(names.dead_letter_stream(stream), number)
    return letter


def _letter(raw: Any) -> DeadLetter:
    headers: dict[str, str] = {
        key.removeprefix(_PREFIX): value for key, value in (raw.headers or {}).items() if key.startswith(_PREFIX)
    }
    return DeadLetter(
        number=raw.seq or 0,
        process=headers.get("Process", ""),
        subject=headers.get("Subject", ""),
        request_id=headers.get("Request-Id", ""),
        error=headers.get("Error", ""),
        at=datetime.datetime.fromtimestamp(float(headers.get("At", "0")), datetime.UTC),
        deliveries=int(headers.get("Deliveries", "0")),
        replay=int(headers.get("Replay", "0")),
        size=len(raw.data or b""),
        body=raw.data or b"",
    )
