"""Small pure parts: the drawn graph, metrics text, log records, Kubernetes manifests, discovery."""

import json
import logging
import sys
from pathlib import Path

import pytest
import yaml

from fieldstation.pipeline.config import LoggerConfig
from fieldstation.pipeline.discover import command_for
from fieldstation.pipeline.errors import NoCommandError
from fieldstation.pipeline.health import HealthServer
from fieldstation.pipeline.kubernetes import manifests
from fieldstation.pipeline.logs import NodeJsonFormatter, setup
from fieldstation.pipeline.manifest import parse
from fieldstation.pipeline.plan import make_plan
from fieldstation.pipeline.state import ReplicaState
from fieldstation.pipeline.status import ProcessStatus, Reading, draw, levels, rate, rows_of

KRT = """
version: v1.2.0
description: x
workflows:
  - name: flow
    type: serving
    config: {scale: "2"}
    processes:
      - name: door
        type: trigger
        image: registry/door:1
        subscriptions: [out]
        networking: {targetPort: 8080, destinationPort: 80}
      - name: mix
        type: task
        image: registry/mix:1
        replicas: 3
        gpu: true
        subscriptions: [door]
        objectStore: {name: pics, scope: product}
        config: {gain: 3}
        nodeSelectors: {disk: ssd}
        resourceLimits: {CPU: {request: 100m, limit: 500m}, memory: {request: 100Mi}}
      - {name: out, type: exit, image: "registry/out:1", subscriptions: [mix, mix.alarms]}
"""
GOLDEN = Path(__file__).parent / "golden" / "kubernetes.yaml"


def row(name, kind, hears):
    return ProcessStatus("w", name, kind, "1/1", 2.5, 0, 0, 0, 0, 0, hears)


def test_the_graph_is_drawn_from_triggers_to_exits():
    rows = [row("out", "exit", ["mix.alarms"]), row("door", "trigger", ["out"]), row("mix", "task", ["door"])]
    assert draw(rows) == [
        "door (trigger 1/1)  2.5/s  lag 0  ◀ out",
        "    └─▶ mix (task 1/1)  2.5/s  lag 0  ◀ door",
        "        └─▶ out (exit 1/1)  2.5/s  lag 0  ◀ mix.alarms",
    ]


def test_levels_follow_the_longest_way_and_survive_a_cycle():
    assert levels({"a": [], "b": ["a"], "c": ["a", "b"]}) == {"a": 0, "b": 1, "c": 2}
    levels({"a": ["b"], "b": ["a"]})


def test_a_row_tells_how_many_replicas_run_here_or_only_how_many_are_meant_to():
    plan = make_plan(parse(KRT), "demo", "x")
    keys = [(process.workflow, process.name) for process in plan.processes]
    before, after = (dict.fromkeys(keys, Reading(handled, 2, 1, 0, 0)) for handled in (10, 30))
    first = plan.processes[0]
    replicas = [ReplicaState(first.workflow, first.name, n, restarts=n, state="running") for n in (0, 1)]
    here = rows_of(plan, before, after, 2.0, replicas)
    assert [(row.workflow, row.process) for row in here] == keys
    assert (here[0].rate, here[0].lag, here[0].restarts) == (10.0, 2, 1)
    assert here[0].replicas == f"2/{first.replicas}"
    assert rows_of(plan, before, after, 2.0, [])[0].replicas == f"0/{first.replicas}"
    assert rows_of(plan, {}, after, 2.0, None)[0].replicas == f"{first.replicas}"


def test_a_rate_is_never_negative():
    assert rate(Reading(5, 0, 0, 0, 0), Reading(15, 0, 0, 0, 0), 2) == 5
    assert rate(Reading(50, 0, 0, 0, 0), Reading(1, 0, 0, 0, 0), 1) == 0


@pytest.mark.parametrize(
    ("line", "status"),
    [("GET /metrics HTTP/1.1", 200), ("POST /metrics HTTP/1.1", 405), ("GET / HTTP/1.1", 404), ("", 404)],
)
def test_the_health_port_answers_get_on_its_paths_only(line, status):
    server = HealthServer("127.0.0.1", 0, {"/metrics": lambda: (200, "text/plain", "x")})
    assert server._answer(line)[0] == status


def test_a_log_record_has_the_documented_fields_and_no_secret():
    record = logging.LogRecord("fieldstation.pipeline.x", 30, "/a/b.py", 7, "at nats://u:pw@h", (), None)
    record.fields = {"request_id": "r"}
    entry = json.loads(NodeJsonFormatter().format(record))
    assert set(entry) == {"level", "ts", "logger", "caller", "msg", "request_id"}
    assert (entry["level"], entry["caller"]) == ("WARNING", "b.py:7")
    assert "pw" not in entry["msg"]


def test_errors_go_to_their_own_paths_when_there_are_any(tmp_path):
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    try:
        setup(
            LoggerConfig(
                level="InfoLevel", output_paths=[str(tmp_path / "out")], error_output_paths=[str(tmp_path / "err")]
            )
        )
        logging.getLogger("x").info("fine")
        logging.getLogger("x").error("bad")
        assert [json.loads(line)["msg"] for line in (tmp_path / "out").read_text().splitlines()] == ["fine"]
        assert [json.loads(line)["msg"] for line in (tmp_path / "err").read_text().splitlines()] == ["bad"]
    finally:
        for handler in set(root.handlers) - set(before):
            root.removeHandler(handler)
            handler.close()
        root.setLevel(level)


def test_kubernetes_manifests_are_as_recorded():
    text = manifests(make_plan(parse(KRT), "demo", "nats://nats:4222"))
    assert text == GOLDEN.read_text(), "look at the difference; if it is meant, write the new text to the golden file"


def test_kubernetes_manifests_hold_what_a_node_needs():
    documents = list(yaml.safe_load_all(manifests(make_plan(parse(KRT), "demo", "nats://nats:4222"))))
    kinds = [document["kind"] for document in documents]
    assert kinds.count("Deployment") == 3
    assert kinds.count("HorizontalPodAutoscaler") == kinds.count("Service") == 1
    for document in documents:
        assert {"apiVersion", "kind", "metadata"} <= set(document)
        assert len(document["metadata"]["name"]) <= 63
    config = next(d for d in documents if d["kind"] == "ConfigMap" and d["metadata"]["labels"]["process"] == "mix")
    app = yaml.safe_load(config["data"]["app.yaml"])
    assert app["nats"]["object_store"] == "demo_v1_2_0_pics"
    assert app["centralized_configuration"]["process"]["config"] == {"gain": "3"}


def test_a_plan_names_everything_as_documented():
    plan = make_plan(parse(KRT), "demo", "x")
    assert [consumer.name for consumer in plan.consumers] == [
        "demo_v1_2_0_flow-door-mix",
        "demo_v1_2_0_flow-mix-out",
        "demo_v1_2_0_flow-mix-alarms-out",
    ]
    assert plan.object_stores == ("demo_v1_2_0_pics",)
    assert {bucket.name: bucket.values for bucket in plan.buckets if bucket.values} == {
        "key-store_demo_v1_2_0_flow": {"scale": "2"},
        "key-store_demo_v1_2_0_flow_mix": {"gain": "3"},
    }


def test_the_program_of_a_process_is_found_where_the_document_says(tmp_path):
    node = [sys.executable, "-m", "fieldstation.pipeline"]
    assert command_for("mix", "w", "node:echo", tmp_path, {}) == [*node, "echo"]
    assert command_for("mix", "w", "exec:./mix --fast 'a b'", tmp_path, {}) == ["./mix", "--fast", "a b"]
    assert command_for("mix", "w", "x", tmp_path, {"mix": "other.py"}) == [*node, str(tmp_path / "other.py")]
    assert command_for("mix", "w", "x", tmp_path, {"mix": "true --now"}) == ["true", "--now"]
    with pytest.raises(NoCommandError, match=r"w/mix\.py or mix\.py"):
        command_for("mix", "w", "x", tmp_path, {})
    (tmp_path / "mix.py").touch()
    assert command_for("mix", "w", "x", tmp_path, {}) == [*node, str(tmp_path / "mix.py")]
