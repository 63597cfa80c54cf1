"""Messages, and the process that handles them, as plain data."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from fieldstation.pipeline.names import WorkflowNames


class MessageType(enum.IntEnum):
    """What a message says of itself. The enum is open: other numbers arrive and are handed to the handler as well."""

    UNDEFINED = 0
    OK = 1
    ERROR = 2
    EARLY_REPLY = 3  # historic: a normal output with another type; nothing routes on it
    EARLY_EXIT = 4  # as above


class ProcessType(enum.StrEnum):
    """Where a process stands in the graph."""

    TRIGGER = "trigger"  # begins requests, hears every response
    TASK = "task"  # shares its inputs with its replicas
    EXIT = "exit"  # as a task; the end of the graph, whose output goes to triggers


@dataclass(frozen=True, slots=True)
class Message:
    """One message between nodes. `payload` is a google.protobuf.Any (an empty one when the sender sent none)."""

    request_id: str
    payload: Any
    error: str = ""
    from_node: str = ""
    message_type: int = MessageType.OK


@dataclass(frozen=True, slots=True)
class Process:
    """Who a node is: the metadata by which its manager names it."""

    product: str
    version: str
    workflow: str
    name: str
    kind: ProcessType
    workflow_type: str = ""

    @property
    def names(self) -> WorkflowNames:
        """The names of its workflow."""
        return WorkflowNames(self.product, self.version, self.workflow)


@dataclass(frozen=True, slots=True)
class Origin:
    """Which input a message is, the same on every delivery and on every replay of its dead letter."""

    consumer: str
    created: int  # creation time of the input's stream, Unix nanoseconds
    sequence: int  # in that stream
    subject: str
    replay: int = 0  # how often its dead letter was put back


@dataclass(slots=True)
class Delivery:
    """One message as a bus hands it over, to be settled exactly once."""

    body: bytes
    origin: Origin
    deliveries: int = 1  # how often the bus has handed it out, this time included
    reply: str = ""  # the bus's own handle for settling it
    trace: str = ""  # the W3C `traceparent` it came with


@dataclass(slots=True)
class Counts:
    """What a node did since it started; plain integers, written by its event loop alone."""

    received: int = 0
    succeeded: int = 0
    failed: int = 0  # tries that ended in an error
    retried: int = 0
    dead: int = 0
    handed_back: int = 0
    repeated: int = 0  # delivered again while still in work here
    published: int = 0
    duplicates: int = 0  # outputs the server already had
    republished: int = 0  # outputs sent again because no confirmation came
    reconnects: int = 0
