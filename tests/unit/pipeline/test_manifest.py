import pytest

from fieldstation.pipeline.errors import ManifestError
from fieldstation.pipeline.manifest import parse

GOOD = """\
version: v0.1.0
description: dose test
config: {gain: 3}
workflows:
  - name: dose
    type: data
    processes:
      - {name: door, type: trigger, image: "x", subscriptions: [out],
         networking: {targetPort: 8080, destinationPort: 8080},
         resourceLimits: {CPU: {request: 100m}, memory: {request: 100Mi}}}
      - {name: mix, type: task, image: "x", subscriptions: [door], objectStore: {name: pics, scope: workflow},
         resourceLimits: {CPU: {request: 100m}, memory: {request: 100Mi}}}
      - {name: out, type: exit, image: "x", subscriptions: [mix, mix.alarms],
         resourceLimits: {CPU: {request: 100m}, memory: {request: 100Mi}}}
"""


def refused(text):
    with pytest.raises(ManifestError) as caught:
        parse(text)
    return str(caught.value)


def test_the_documented_example_is_accepted():
    manifest = parse(GOOD)
    assert manifest.config == {"gain": "3"}
    assert [p.name for p in manifest.workflows[0].processes] == ["door", "mix", "out"]


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("v0.1.0", "0.1", 1, "version: '0.1' must look like v1.2.3"),
        ("description: dose test\n", "", 1, "description is missing"),
        ("name: mix, type: task", "name: Mix_1, type: task", 11, "lower-case letters"),
        ("name: mix, type: task", "name: out, type: task", 13, "the name out is there twice"),
        ("subscriptions: [door]", "subscriptions: [dor]", 11, "there is no process dor"),
        ("subscriptions: [door]", "subscriptions: [out]", 11, "a task may hear trigger or task, and out is a exit"),
        ("subscriptions: [door]", "subscriptions: [mix]", 11, "mix subscribes to itself"),
        ("subscriptions: [door]", "subscriptions: [door, door]", 11, "door is subscribed twice"),
        ("subscriptions: [door]", "subscriptions: []", 11, "the task mix listens to nobody"),
        (" subscriptions: [door],", "", 11, "a task needs subscriptions"),
        ("mix.alarms", "mix.a.b", 13, "one word"),
        ("scope: workflow", "scope: planet", 11, "unknown scope 'planet'"),
        ("type: trigger", "type: gate", 8, "'trigger', 'task' or 'exit'"),
        ("type: data", "type: fun", 6, "'data'"),
        ('image: "x", subscriptions: [door]', 'image: "x", replicas: 0, subscriptions: [door]', 11, "greater than"),
        ('image: "x", subscriptions: [door]', 'image: "x", replcas: 2, subscriptions: [door]', 11, "no such setting"),
        ("{request: 100Mi}}}\n      - {name: mix", "{request: 100}}}\n      - {name: mix", 10, "number with a unit"),
        ("CPU: {request: 100m}", "CPU: {request: 10m}", 10, "three digits and m"),
        ("CPU: {request: 100m}", "CPU: {request: 200m, limit: 100m}", 10, "below the request"),
        ("targetPort: 8080", "targetPort: 99999", 9, "less than or equal to 65535"),
        ("config: {gain: 3}", "config: {gain: 3, gain: 4}", 3, "twice"),
        ("type: task", "type: exit", 13, "a exit may hear trigger or task"),
    ],
)
def test_a_mistake_is_told_with_its_line(old, new, line, said):
    assert old in GOOD
    text = refused(GOOD.replace(old, new, 1))
    assert said in text
    assert f"line {line}:" in text


def test_a_cycle_is_shown():
    ring = GOOD.replace("subscriptions: [door], ", "subscriptions: [door, two], ").replace(
        "      - {name: out,", '      - {name: two, type: task, image: "x", subscriptions: [mix]}\n      - {name: out,'
    )
    assert "the graph has a cycle: mix <- two <- mix" in refused(ring)


def test_trigger_and_exit_are_needed():
    assert "needs at least one exit" in refused(GOOD.replace("type: exit", "type: task").replace("[out]", "[]"))


def test_all_mistakes_are_told_together():
    text = refused(GOOD.replace("v0.1.0", "x").replace("type: data", "type: y").replace("name: mix", "name: MIX"))
    assert "krt.yaml has 3 mistakes" in text


@pytest.mark.parametrize("text", ["", "- 1", "version: [", "a: b: c", "version: v1.0.0\n\tx: 1"])
def test_what_is_no_map_or_no_yaml_is_one_sentence(text):
    assert "line" in refused(text)


def test_the_older_form_of_secrets_is_accepted():
    parse(GOOD.replace('name: mix, type: task, image: "x"', 'name: mix, type: task, image: "x", secrets: {a: b}'))


def test_an_unreadable_file_is_a_sentence(tmp_path):
    from fieldstation.pipeline.manifest import load

    with pytest.raises(ManifestError, match="cannot be read"):
        load(tmp_path / "none.yaml")
