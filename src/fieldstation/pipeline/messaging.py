"""`sdk.messaging`: what a handler sends, and what it may ask about the message in work."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Generator
from typing import Any

from fieldstation.pipeline import names
from fieldstation.pipeline.bus import Bus, Codec
from fieldstation.pipeline.errors import MessageError
from fieldstation.pipeline.model import Message, MessageType, Process
from fieldstation.pipeline.traces import HEADER_BYTES, Traces
from fieldstation.pipeline.work import SEND_WINDOW, Work, current

_HEADER_ROOM = 48  # "NATS/1.0", "Nats-Msg-Id: " and line ends count against the size limit


class Sending:
    """A message on its way. It was handed over when the send method was called; awaiting is not what sends it.

    Inside a handler, awaiting it returns at once (or waits for room when the broker is behind), because the input is
    acknowledged only after every output is confirmed. Elsewhere awaiting it waits for the server's confirmation, and
    raises PublishError when there will be none.
    """

    __slots__ = ("_future", "_work")

    def __init__(self, work: Work | None, future: asyncio.Future[None]) -> None:
        self._work = work
        self._future = future

    def __await__(self) -> Generator[Any, None, None]:
        if self._work is None:
            yield from self._future.__await__()
        elif self._work.unconfirmed >= SEND_WINDOW:
            yield from self._work.wait_for_room().__await__()

    async def confirmed(self) -> None:
        """Wait until the server has stored the message; PublishError when it never will."""
        await self._future


class Messaging:
    """Sends messages; each method hands the message over at once and returns a Sending to await.

    Sync handlers run in a thread and need not await: a message they send is confirmed before the input is
    acknowledged, like any other. A message that cannot be sent raises here (too large, no protobuf message).
    """

    def __init__(self, process: Process, output: str, bus: Bus, codec: Codec, loop: asyncio.AbstractEventLoop) -> None:
        self._process = process
        self._output = output
        self._bus = bus
        self._codec = codec
        self._loop = loop
        self.traces: Traces | None = None  # set when traces are on
        self.on_request: Callable[[str], None] | None = None  # a trigger keeps the answers to what it sends

    def send_output(self, message: Any, chan: str | None = None) -> Sending:
        """Send a protobuf `message` on the output, or on its channel `chan` (one word, no dot).

        The request id is that of the message in work; outside of one it is a new UUID.
        """
        return self._send(self._codec.pack(message), None, chan, MessageType.OK)

    def send_output_with_request_id(self, message: Any, request_id: str, chan: str | None = None) -> Sending:
        """Like send_output with a given request id; an empty one becomes a new UUID."""
        return self._send(self._codec.pack(message), request_id, chan, MessageType.OK)

    def send_any(self, payload: Any, chan: str | None = None) -> Sending:
        """Send `payload`, already a google.protobuf.Any."""
        return self._send(self._codec.pack(payload), None, chan, MessageType.OK)

    def send_any_with_request_id(self, payload: Any, request_id: str, chan: str | None = None) -> Sending:
        """Like send_any with a given request id."""
        return self._send(self._codec.pack(payload), request_id, chan, MessageType.OK)

    def send_error(self, error: str, chan: str | None = None) -> Sending:
        """Send an ERROR message: a text and no payload. Who asked for this request sees the text."""
        return self._send(None, None, chan, MessageType.ERROR, error)

    def send_early_reply(self, message: Any, chan: str | None = None) -> Sending:
        """Send an output of the historic type EARLY_REPLY; only the type differs, nothing routes on it."""
        return self._send(self._codec.pack(message), None, chan, MessageType.EARLY_REPLY)

    def send_early_exit(self, message: Any, chan: str | None = None) -> Sending:
        """Send an output of the historic type EARLY_EXIT; only the type differs, nothing routes on it."""
        return self._send(self._codec.pack(message), None, chan, MessageType.EARLY_EXIT)

    def get_error_message(self) -> str:
        """Return the error text of the message in work when it is an ERROR, else an empty string."""
        message = self._message()
        return message.error if message is not None and message.message_type == MessageType.ERROR else ""

    def is_message_ok(self) -> bool:
        """True when the message in work is of type OK."""
        return self._is(MessageType.OK)

    def is_message_error(self) -> bool:
        """True when the message in work is of type ERROR."""
        return self._is(MessageType.ERROR)

    def is_message_early_reply(self) -> bool:
        """True when the message in work is of the historic type EARLY_REPLY."""
        return self._is(MessageType.EARLY_REPLY)

    def is_message_early_exit(self) -> bool:
        """True when the message in work is of the historic type EARLY_EXIT."""
        return self._is(MessageType.EARLY_EXIT)

    def get_request_id(self, nats_msg: Any) -> tuple[str, Exception | None]:
        """Read the request id from a raw NATS message (anything with `data` and `subject`): (id, error or None)."""
        try:
            return self._codec.decode(nats_msg.data, nats_msg.subject).request_id, None
        except MessageError as error:
            return "", error

    def _message(self) -> Message | None:
        work = current.get()
        return work.message if work is not None else None

    def _is(self, kind: MessageType) -> bool:
        message = self._message()
        return message is not None and message.message_type == kind

    def _send(
        self, payload: Any, request_id: str | None, chan: str | None, kind: MessageType, error: str = ""
    ) -> Sending:
        work = current.get()
        if request_id is None and work is not None and work.message is not None:
            request_id = work.message.request_id
        if not request_id and kind is not MessageType.ERROR:
            request_id = str(uuid.uuid4())
        if chan and ("." in chan or " " in chan or "*" in chan or ">" in chan):
            raise MessageError(problem=f"the channel {chan!r} must be one word without dots, spaces or wildcards")
        subject = f"{self._output}.{chan}" if chan else self._output
        if self.on_request is not None and request_id:
            self.on_request(request_id)
        body = self._codec.encode(Message(request_id or "", payload, error, self._process.name, kind))
        return self.send_body(work, subject, chan or "", body)

    def send_body(self, work: Work | None, subject: str, channel: str, body: bytes) -> Sending:
        """Compress when needed, number and hand over; from any thread."""
        if work is not None and work.finished:
            work = None  # sent by a task that outlived its handler: nothing left to tie it to
        if work is None:
            message_id = str(uuid.uuid4())
        else:
            origin = work.delivery.origin
            message_id = names.message_id(
                self._process.name,
                origin.consumer,
                origin.created,
                origin.sequence,
                channel,
                work.next_index(channel),
                origin.replay,
            )
        headers = self.traces.outgoing(subject, work) if self.traces is not None else None
        if len(body) > 1000:  # the smallest limit a server may be given is above this
            room = _HEADER_ROOM + len(message_id) + (HEADER_BYTES if headers else 0)
            body = self._codec.fit(body, self._bus.limit - room, subject)
        future: asyncio.Future[None] = self._loop.create_future()

        def done(problem: Exception | None) -> None:
            if not future.done():
                if problem is None:
                    future.set_result(None)
                else:
                    future.set_exception(problem)
                    future.exception()  # somebody may not be waiting: then this is not a forgotten error
            if work is not None:
                work.output_done(problem)

        def send() -> None:
            if work is not None:
                work.unconfirmed += 1
            self._bus.send(subject, body, message_id, done, headers)

        if _on(self._loop):
            send()
        else:
            # Runs before the handler's own end is told to the loop: both go through the same ordered door.
            self._loop.call_soon_threadsafe(send)
        return Sending(work, future)


def _on(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
