"""What streams, subjects, consumers and buckets are called: the naming rules both SDKs and the manager share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
VERSION = re.compile(r"v\d+\.\d+\.\d+")
KEY = re.compile(r"[-/_=.a-zA-Z0-9]+")  # what a NATS key-value key may hold
NAME_LIMIT = 20


@dataclass(frozen=True, slots=True)
class WorkflowNames:
    """The names that belong to one workflow of one version of a product (version as `v1.2.3`)."""

    product: str
    version: str
    workflow: str

    @property
    def stream(self) -> str:
        """`demo_v1_2_3_flow`: every message of the workflow."""
        return f"{self.product}_{self.version.replace('.', '_')}_{self.workflow}"

    def output(self, process: str, channel: str = "") -> str:
        """The subject a process publishes on, or one of its channels."""
        return f"{self.stream}.{process}.{channel}" if channel else f"{self.stream}.{process}"

    def input(self, subscription: str) -> str:
        """The subject of a subscription as krt.yaml writes it: `node` or `node.channel`."""
        return f"{self.stream}.{subscription}"

    def subjects(self, processes: list[str]) -> list[str]:
        """The stream's subject list: each process and its one-token channels."""
        return [subject for name in processes for subject in (self.output(name), f"{self.output(name)}.*")]

    def object_store(self, store: str, scope: str) -> str:
        """The bucket of an object store; scope `workflow`, or `product` (the manager's code calls it `project`)."""
        if scope == "workflow":
            return f"{self.stream}_{store}"
        return f"{self.product}_{self.version.replace('.', '_')}_{store}"


def product_of(product: str, manifest: Path) -> str:
    """The product's name: as given, or the folder's, made to fit the name rule."""
    name = product or manifest.resolve().parent.name
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:20] or "local"


def durable(subject: str, process: str) -> str:
    """The durable consumer and queue group through which all replicas of `process` share `subject`."""
    return f"{subject.replace('.', '-')}-{process.replace('.', '-').replace(' ', '-')}"


def bucket(product: str, version: str = "", workflow: str = "", process: str = "") -> str:
    """The key-value bucket of a scope: global with the product alone, then version, workflow, process."""
    parts = [part for part in (product, version, workflow, process) if part]
    return "key-store_" + "_".join(parts).replace(".", "_")


def deliver_subject(durable_name: str) -> str:
    """Where the server pushes what a durable holds. It depends on the durable alone: replicas that race to create
    the consumer all propose the same subject, and none is left listening to an inbox that lost."""
    return f"fieldstation.deliver.{durable_name}"


def dead_letter_stream(stream: str) -> str:
    """The stream beside a workflow's stream that keeps what its processes gave up on."""
    return f"{stream}_dead-letters"


def dead_letter_subject(stream: str, process: str) -> str:
    """Where a process puts a message it gave up on."""
    return f"dead.{stream}.{process}"


def replay_subject(stream: str, process: str) -> str:
    """Where a dead letter is put for its process alone to try again."""
    return f"replay.{stream}.{process}"


def message_id(process: str, consumer: str, created: int, sequence: int, channel: str, index: int, replay: int) -> str:
    """The `Nats-Msg-Id` of output number `index` on `channel` for one input.

    JetStream's dedup looks at the id alone, over all subjects of a stream. So the process and its consumer are in it
    (two tasks read the same input), and the input stream's creation time (a stream made anew counts from 1 again).
    """
    replayed = f":r{replay}" if replay else ""
    return f"{process}:{consumer}:{created}:{sequence}:{channel}:{index}{replayed}"
