"""From a manifest to everything that must exist: streams, consumers, buckets, stores, one configuration per process.

Pure: `provision` makes what is planned here, the Kubernetes export writes it down.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fieldstation.pipeline.manifest import Manifest, ProcessSpec, WorkflowSpec
from fieldstation.pipeline.names import WorkflowNames, bucket, durable


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """The stream of one workflow."""

    name: str
    subjects: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ConsumerPlan:
    """The durable through which the replicas of a task or exit share one input."""

    stream: str
    name: str
    subject: str


@dataclass(frozen=True, slots=True)
class BucketPlan:
    """A key-value bucket and what is written into it."""

    name: str
    values: dict[str, str]


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    """One process: how many, which program, and its documented configuration."""

    workflow: str
    name: str
    kind: str
    image: str
    replicas: int
    subscriptions: tuple[str, ...]
    config: dict[str, Any]
    spec: ProcessSpec


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything one version of a product needs."""

    product: str
    version: str
    streams: tuple[StreamPlan, ...]
    consumers: tuple[ConsumerPlan, ...]
    buckets: tuple[BucketPlan, ...]
    object_stores: tuple[str, ...]
    processes: tuple[ProcessPlan, ...]
    labels: dict[str, str] = field(default_factory=dict)


def make_plan(manifest: Manifest, product: str, nats_url: str) -> Plan:
    """Plan `manifest` as a version of `product`, for nodes that reach NATS at `nats_url`."""
    streams: list[StreamPlan] = []
    consumers: list[ConsumerPlan] = []
    buckets = [BucketPlan(bucket(product), {}), BucketPlan(bucket(product, manifest.version), manifest.config)]
    stores: dict[str, None] = {}
    processes: list[ProcessPlan] = []
    for workflow in manifest.workflows:
        names = WorkflowNames(product, manifest.version, workflow.name)
        streams.append(StreamPlan(names.stream, tuple(names.subjects([p.name for p in workflow.processes]))))
        buckets.append(BucketPlan(bucket(product, manifest.version, workflow.name), workflow.config))
        for process in workflow.processes:
            buckets.append(BucketPlan(bucket(product, manifest.version, workflow.name, process.name), process.config))
            if process.objectStore is not None:
                stores[names.object_store(process.objectStore.name, process.objectStore.scope)] = None
            if process.type != "trigger":
                for subscription in process.subscriptions:
                    subject = names.input(subscription)
                    consumers.append(ConsumerPlan(names.stream, durable(subject, process.name), subject))
            processes.append(_process(names, workflow, process, nats_url))
    return Plan(
        product,
        manifest.version,
        tuple(streams),
        tuple(consumers),
        tuple(buckets),
        tuple(stores),
        tuple(processes),
    )


def _process(names: WorkflowNames, workflow: WorkflowSpec, process: ProcessSpec, nats_url: str) -> ProcessPlan:
    nats: dict[str, Any] = {
        "url": nats_url,
        "stream": names.stream,
        "output": names.output(process.name),
        "inputs": [names.input(subscription) for subscription in process.subscriptions],
    }
    if process.objectStore is not None:
        nats["object_store"] = names.object_store(process.objectStore.name, process.objectStore.scope)
    product, version = names.product, names.version
    config = {
        "metadata": {
            "product_id": product,
            "version_tag": version,
            "workflow_name": workflow.name,
            "workflow_type": workflow.type,
            "process_name": process.name,
            "process_type": process.type,
            "base_path": "",
        },
        "nats": nats,
        "centralized_configuration": {
            "global": {"bucket": bucket(product)},
            "product": {"bucket": bucket(product, version)},
            "workflow": {"bucket": bucket(product, version, workflow.name)},
            "process": {"bucket": bucket(product, version, workflow.name, process.name), "config": process.config},
        },
    }
    return ProcessPlan(
        workflow.name,
        process.name,
        process.type,
        process.image,
        process.replicas,
        tuple(process.subscriptions),
        config,
        process,
    )
