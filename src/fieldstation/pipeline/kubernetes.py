"""Write a plan as Kubernetes manifests: plain configuration files and environment, the way nodes expect them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

from fieldstation.pipeline.plan import Plan, ProcessPlan

FOLDER = "/kai"  # where the documented manager mounts app.yaml
HEALTH_PORT = 8088
CPU_TARGET = 80  # per cent at which the autoscaler adds a replica, as documented

Manifest = dict[str, Any]


def manifests(plan: Plan) -> str:
    """Return one YAML text with everything but NATS itself and its streams (`pipeline up --provision` makes those)."""
    documents = [document for process in plan.processes for document in _process(plan, process)]
    text: str = yaml.dump_all(documents, Dumper=_Readable, sort_keys=False, explicit_start=True, width=120)
    return text


class _Readable(yaml.SafeDumper):
    """Writes everything out (no anchors), and files as the blocks of text they are."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Readable.add_representer(str, _text)


def _process(plan: Plan, process: ProcessPlan) -> Iterable[Manifest]:
    name = re.sub(r"[^a-z0-9-]", "-", f"{plan.product}-{plan.version}-{process.workflow}-{process.name}".lower())
    labels = {
        "product": plan.product,
        "version": plan.version,
        "workflow": process.workflow,
        "process": process.name,
        "type": process.kind,
    }
    config = {**process.config, "runner": {"health": {"host": "0.0.0.0", "port": HEALTH_PORT}}}  # noqa: S104 - inside a pod
    yield {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": labels},
        "data": {"app.yaml": yaml.safe_dump(config, sort_keys=False)},
    }
    yield {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": _pod(process, name)},
        },
    }
    if process.replicas > 1:
        yield _autoscaler(name, labels, process.replicas)
    networking = process.spec.networking
    if networking is not None:
        port = {
            "name": networking.protocol.lower(),
            "port": networking.destinationPort,
            "targetPort": networking.targetPort,
            "protocol": "TCP",
        }
        yield {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "labels": labels},
            "spec": {"selector": labels, "ports": [port]},
        }


def _pod(process: ProcessPlan, name: str) -> Manifest:
    spec = process.spec
    container: Manifest = {
        "name": process.name,
        "image": process.image,
        "env": [{"name": "KAI_APP_CONFIG_PATH", "value": FOLDER}],
        "volumeMounts": [{"name": "config", "mountPath": FOLDER, "readOnly": True}],
        "ports": [{"name": "health", "containerPort": HEALTH_PORT}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "health"}, "periodSeconds": 5},
        "livenessProbe": {
            "httpGet": {"path": "/health", "port": "health"},
            "periodSeconds": 20,
            "timeoutSeconds": 10,
            "failureThreshold": 6,
        },
    }
    resources: Manifest = {}
    if spec.resourceLimits is not None:
        cpu, memory = spec.resourceLimits.CPU, spec.resourceLimits.memory
        resources = {
            "requests": {"cpu": cpu.request, "memory": memory.request},
            "limits": {"cpu": cpu.limit or cpu.request, "memory": memory.limit or memory.request},
        }
    if spec.gpu:
        resources.setdefault("limits", {})["nvidia.com/gpu"] = "1"
    if resources:
        container["resources"] = resources
    pod: Manifest = {
        "terminationGracePeriodSeconds": 30,
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": name}}],
    }
    if spec.nodeSelectors:
        pod["nodeSelector"] = dict(spec.nodeSelectors)
    return pod


def _autoscaler(name: str, labels: dict[str, str], replicas: int) -> Manifest:
    target = {"type": "Utilization", "averageUtilization": CPU_TARGET}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": 1,
            "maxReplicas": replicas,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
        },
    }
