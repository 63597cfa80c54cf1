"""What a runner asks of a message bus. Two implementations: JetStream and, for unit tests, memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Protocol

from fieldstation.pipeline.config import MAX_INFLATED_BYTES
from fieldstation.pipeline.model import Delivery, Message

Confirm = Callable[[Exception | None], None]


class Codec(Protocol):
    """Turns messages into bytes and back, and users' values into payloads."""

    def encode(self, message: Message) -> bytes:
        """Serialize."""

    def decode(self, body: bytes, subject: str, max_inflated: int = MAX_INFLATED_BYTES) -> Message:
        """Parse; UndecodableMessageError or InflatedTooLargeError when that is impossible."""

    def fit(self, body: bytes, limit: int, subject: str) -> bytes:
        """Compress when longer than `limit`; MessageTooLargeError when that is not enough."""

    def pack(self, value: Any) -> Any:
        """Make a payload of a protobuf message; WrongReturnError for anything else."""

    def unpack(self, payload: Any, wanted: Any) -> Any:
        """Return the message of class `wanted` inside; UnknownPayloadError when it holds something else."""

    def is_proto(self, cls: Any) -> bool:
        """True when `cls` is a class that `unpack` can return."""


class Subscription(Protocol):
    """One input of a node."""

    async def close(self) -> None:
        """Take no more; everything the bus had sent has been handed over when this returns."""


class Bucket(Protocol):
    """A key-value bucket with text values."""

    async def get(self, key: str) -> str | None:
        """Return the value, or None for an absent or deleted key."""

    async def put(self, key: str, value: str) -> None:
        """Set the value."""

    async def create(self, key: str, value: str) -> bool:
        """Set the value unless the key has one; says whether it was set."""

    async def delete(self, key: str) -> None:
        """Put a delete marker."""

    async def keys(self) -> list[str]:
        """Return the live keys."""

    def watch(self) -> AsyncIterator[tuple[str, str | None] | None]:
        """Yield (key, value or None when deleted): first all there are, then a None, then changes as they come."""


class Objects(Protocol):
    """An object store: named byte strings of any size."""

    async def exists(self, key: str) -> bool:
        """Look at the object's metadata only."""

    async def get(self, key: str) -> bytes | None:
        """Return the object, or None."""

    async def put(self, key: str, payload: bytes) -> None:
        """Store or replace the object."""

    async def create(self, key: str, payload: bytes) -> bool:
        """Store the object unless there is one of that name, decided by the server; says whether it was stored."""

    async def delete(self, key: str) -> bool:
        """Delete the object; False when there was none."""

    async def list(self) -> list[str]:
        """Return the names of the live objects."""


class Bus(Protocol):
    """Carries messages between nodes; settles each delivery once."""

    def send(
        self, subject: str, body: bytes, message_id: str, done: Confirm, headers: Mapping[str, str] | None = None
    ) -> None:
        """Publish soon, in order; `done(None)` when the server has stored it, `done(error)` when it never will.

        Without a confirmation it is sent again under the same id, for as long as it takes.
        """

    def send_dead_letter(self, process: str, delivery: Delivery, request_id: str, error: str, done: Confirm) -> None:
        """Keep a message that `process` gave up on, with why, for people to look at and put back."""

    @property
    def limit(self) -> int:
        """How many bytes a message on the workflow's stream may have, headers included."""

    async def subscribe(
        self, subject: str, durable: str, *, shared: bool, deliver: Callable[[Delivery], None]
    ) -> Subscription:
        """Hand every new message on `subject` to `deliver`: to one replica when `shared`, else to each."""

    async def subscribe_replays(self, process: str, deliver: Callable[[Delivery], None]) -> Subscription:
        """Hand dead letters that were put back for `process` to `deliver`."""

    def acknowledge(self, delivery: Delivery) -> None:
        """It is done; never hand it out again."""

    def hand_back(self, delivery: Delivery, delay_s: float = 0) -> None:
        """It was not done; hand it out again, after `delay_s`."""

    def in_progress(self, delivery: Delivery) -> None:
        """It is still in work; start the ack wait anew."""

    async def bucket(self, name: str) -> Bucket:
        """Open a key-value bucket; BucketMissingError when there is none."""

    async def objects(self, name: str) -> Objects:
        """Open an object store; BucketMissingError when there is none."""

    @property
    def connected(self) -> bool:
        """True while messages can flow."""

    async def flush(self) -> None:
        """Wait until what was sent and settled has left this process."""

    async def run(self) -> None:
        """Keep messages flowing until cancelled; raise when that has become impossible."""

    async def close(self) -> None:
        """Let go of the connection."""
