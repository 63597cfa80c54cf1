import asyncio
import signal
from collections import Counter
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import StringValue

pytestmark = pytest.mark.timeout(60)
STREAM = "demo_v0_1_0_flow"


async def test_a_request_goes_through_trigger_task_and_exit_and_comes_back(rig):
    flow = await rig()
    answers = []

    async def door(requests, sdk):
        for number in range(20):
            answer = await requests.request(StringValue(value=str(number)))
            answers.append(StringValue.FromString(answer.value).value)

    await flow.start("out")
    await flow.start("mix", lambda sdk, payload: payload)
    await flow.start("door", door)
    await flow.eventually(lambda: len(answers) == 20)
    assert answers == [str(number) for number in range(20)]


TWO_TASKS = """
version: v0.1.0
description: two tasks hear one door
workflows:
  - name: flow
    type: data
    processes:
      - {name: door, type: trigger, image: x, subscriptions: [out]}
      - {name: mix, type: task, image: x, subscriptions: [door]}
      - {name: mux, type: task, image: x, subscriptions: [door]}
      - {name: out, type: exit, image: x, subscriptions: [mix, mux]}
"""


async def test_two_tasks_on_one_input_lose_nothing_to_the_streams_dedup(rig, texts):
    flow = await rig(TWO_TASKS)
    mixed = await flow.collector(f"{STREAM}.mix", "c1")
    muxed = await flow.collector(f"{STREAM}.mux", "c2")
    await flow.start("mix")
    await flow.start("mux")
    wanted = [str(number) for number in range(200)]
    await flow.feed("door", wanted)

    async def all_there():
        return len(await mixed()) >= 200 and len(await muxed()) >= 200

    await flow.eventually(all_there)
    assert sorted(texts(await mixed())) == sorted(texts(await muxed())) == sorted(wanted)


async def test_several_inputs_and_channels_reach_one_process(rig):
    manifest = TWO_TASKS.replace("subscriptions: [mix, mux]", "subscriptions: [mix.alarms, mux]")
    flow = await rig(manifest)
    seen = []

    async def alarm(sdk, payload):
        await sdk.messaging.send_output(payload, "alarms")

    async def out(sdk, message: StringValue):
        seen.append(message.value)

    await flow.start("out", out)
    await flow.start("mix", alarm)
    await flow.start("mux")
    await flow.feed("door", ["a", "b"])
    await flow.eventually(lambda: len(seen) == 4)
    assert Counter(seen) == {"a": 2, "b": 2}


async def test_every_trigger_hears_every_response_and_replicas_of_a_task_share(rig):
    flow = await rig()
    triggers = [await flow.start("door") for _ in range(3)]
    exits = [await flow.start("out") for _ in range(2)]
    await flow.feed("mix", [str(number) for number in range(100)])
    await flow.eventually(lambda: all(service.counts.received == 100 for service in triggers))
    assert sum(service.counts.succeeded for service in exits) == 100
    assert all(service.counts.succeeded for service in exits)


async def test_equal_replicas_share_within_a_fifth(rig):
    flow = await rig()
    replicas = [await flow.start("mix") for _ in range(3)]
    await flow.feed("door", [str(number) for number in range(3000)])
    await flow.eventually(lambda: sum(service.counts.succeeded for service in replicas) == 3000, 20)
    shares = [service.counts.succeeded / 1000 for service in replicas]
    assert all(0.8 <= share <= 1.2 for share in shares), shares


async def test_a_killed_replicas_message_is_redone_by_another_within_the_ack_wait(rig, texts, tmp_path):
    flow = await rig(ack_wait_s=2.0)
    collected = await flow.collector(f"{STREAM}.mix")
    begun = tmp_path / "begun"
    first = await flow.spawn("mix", "slow.py", env={"BEGUN": str(begun)})
    await flow.feed("door", ["precious"])
    await flow.eventually(begun.exists)
    await flow.spawn("mix", "slow.py", env={"BEGUN": str(tmp_path / "second"), "TAKES": "0"})
    await flow.end(first, signal.SIGKILL)

    async def redone():
        return await collected()

    await flow.eventually(redone, 10)  # the ack wait is two seconds, and some for a busy machine
    assert texts(await collected()) == ["precious"]
    info = await flow.js.consumer_info(STREAM, f"{STREAM}-door-mix")
    assert (info.delivered.consumer_seq, info.num_ack_pending) == (2, 0)


async def test_slow_work_is_not_handed_out_twice_with_a_short_ack_wait(rig, texts):
    flow = await rig(ack_wait_s=1.0)
    collected = await flow.collector(f"{STREAM}.mix")
    runs = []

    async def slow(sdk, payload):
        runs.append(1)
        await asyncio.sleep(3)
        return payload

    first = await flow.start("mix", slow)
    second = await flow.start("mix", slow)
    await flow.feed("door", ["x"])

    async def there():
        return await collected()

    await flow.eventually(there)
    assert len(runs) == 1
    assert first.counts.received + second.counts.received == 1


async def test_sigterm_finishes_what_is_in_work_and_hands_back_the_rest_at_once(rig, texts, tmp_path):
    flow = await rig(ack_wait_s=60.0)
    collected = await flow.collector(f"{STREAM}.mix")
    begun = tmp_path / "begun"
    first = await flow.spawn(
        "mix", "slow.py", env={"BEGUN": str(begun), "TAKES": "0.5"}, subscriber={"drain_timeout": 5}
    )
    await flow.feed("door", [str(number) for number in range(50)])
    await flow.eventually(begun.exists)
    await flow.start("mix")
    await flow.end(first, signal.SIGTERM)
    assert first.returncode == 0

    async def all_there():
        return len(await collected()) >= 50

    await flow.eventually(all_there, 15)  # far below the ack wait of a minute
    assert sorted(texts(await collected()), key=int) == [str(number) for number in range(50)]


async def test_a_message_waiting_behind_a_slow_one_goes_to_an_idle_replica(rig):
    flow = await rig(ack_wait_s=60.0)
    gate = asyncio.Event()
    done = []

    async def stuck(sdk, payload):
        await gate.wait()

    async def quick(sdk, message: StringValue):
        done.append(message.value)

    busy = await flow.start("mix", stuck, subscriber={"hand_back_after": 0.3, "max_deliveries": 100})
    await flow.feed("door", [str(number) for number in range(10)])
    await flow.eventually(lambda: busy.counts.received == 10)
    await flow.start("mix", quick)
    await flow.eventually(lambda: len(done) >= 7, 20)
    assert busy.counts.handed_back >= 7
    gate.set()
    await flow.eventually(lambda: len(done) + busy.counts.succeeded == 10, 20)


async def test_a_dead_letter_is_listed_shown_and_replayed_to_its_process_alone(rig, texts):
    from fieldstation.pipeline.wire.deadletters import dead_letters, replay

    flow = await rig(TWO_TASKS)
    mixed = await flow.collector(f"{STREAM}.mix", "c1")
    muxed = await flow.collector(f"{STREAM}.mux", "c2")
    mended = []

    async def fragile(sdk, payload):
        if not mended:
            raise ValueError("not today")
        return payload

    await flow.start("mix", fragile)
    await flow.start("mux")
    await flow.feed("door", ["x"])

    async def dead():
        return await dead_letters(flow.js, STREAM)

    [letter] = await flow.eventually(dead)
    assert letter.process == "mix"
    assert letter.request_id == "id-x"
    assert letter.error == "error in node door executing handler for node mix: not today"
    assert letter.subject == f"{STREAM}.door"
    mended.append(1)
    await replay(flow.js, STREAM, letter.number)

    async def answered():
        return len(await mixed()) == 2

    await flow.eventually(answered)
    first, second = await mixed()
    assert (first.message_type, second.message_type) == (2, 1)
    assert texts([second]) == ["x"]
    assert texts(await muxed()) == ["x"]
    assert await dead_letters(flow.js, STREAM) == []


async def test_replicas_started_together_all_get_work(rig):
    flow = await rig()
    await flow.js.delete_consumer(STREAM, f"{STREAM}-door-mix")
    replicas = await asyncio.gather(*(flow.start("mix") for _ in range(6)))
    await flow.feed("door", [str(number) for number in range(600)])
    await flow.eventually(lambda: sum(service.counts.succeeded for service in replicas) == 600)
    assert all(service.counts.succeeded > 0 for service in replicas)


async def test_a_consumer_that_was_deleted_is_made_again(rig, monkeypatch):
    monkeypatch.setattr("fieldstation.pipeline.wire.jetstream.WATCH_S", 0.2)
    flow = await rig()
    service = await flow.start("mix")
    await flow.js.delete_consumer(STREAM, f"{STREAM}-door-mix")

    async def back():
        return [info.name for info in await flow.js.consumers_info(STREAM) if info.name.endswith("door-mix")]

    await flow.eventually(back)
    await flow.feed("door", ["x"])
    await flow.eventually(lambda: service.counts.succeeded == 1)


async def test_objects_are_readable_by_any_standard_client(rig):
    flow = await rig()
    service = await flow.start("mix")
    storage = service.sdk.storage.ephemeral
    payload = bytes(range(256)) * 4000
    await storage.save("a/b", payload)
    store = await flow.js.object_store(f"{STREAM}_pics")
    assert (await store.get("a/b")).data == payload
    await store.put("theirs", b"x")
    assert await storage.get("theirs") == (b"x", True)
    assert sorted(await storage.list()) == ["a/b", "theirs"]


async def test_a_child_node_answers_for_its_health_and_metrics(rig):
    import urllib.request

    flow = await rig()
    child = await flow.spawn("mix", "echo.py")
    await flow.feed("door", ["a", "b"])

    def get(path):
        with urllib.request.urlopen(child.url + path, timeout=5) as answer:
            return answer.status, answer.read().decode()

    async def counted():
        _, text = await asyncio.to_thread(get, "/metrics")
        return 'succeeded_total{product="demo",workflow="flow",process="mix"} 2' in text

    await flow.eventually(counted)
    assert (await asyncio.to_thread(get, "/ready"))[0] == 200
    assert '"connected": true' in (await asyncio.to_thread(get, "/health"))[1]
    assert "request_id" not in (await asyncio.to_thread(get, "/metrics"))[1]


def test_node_files_of_these_tests_exist():
    assert {path.name for path in (Path(__file__).parent / "nodes").glob("*.py")} >= {"echo.py", "slow.py"}
