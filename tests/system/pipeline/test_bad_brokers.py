"""Servers that are not as a pipeline needs them: each is one sentence, and nothing changes."""

import asyncio
import contextlib

import pytest
from nats.js import api

from fieldstation.pipeline.broker import Broker, BrokerSettings, find_binary, free_port
from fieldstation.pipeline.compose import build_service
from fieldstation.pipeline.config import Nats
from fieldstation.pipeline.environment import build
from fieldstation.pipeline.errors import (
    BadKeyError,
    BrokerError,
    BrokerRefusedError,
    BucketMissingError,
    NoInputsError,
    NoJetStreamError,
    StreamMissingError,
    StreamTakenError,
    UnreadMessagesError,
)
from fieldstation.pipeline.manifest import parse
from fieldstation.pipeline.model import ProcessType
from fieldstation.pipeline.node import Node
from fieldstation.pipeline.plan import make_plan
from fieldstation.pipeline.wire.connection import connect, require_jetstream
from fieldstation.pipeline.wire.provision import provision, remove
from fieldstation.testing import Authority

pytestmark = pytest.mark.timeout(40)
STREAM = "demo_v0_1_0_flow"


@contextlib.asynccontextmanager
async def server(folder, text):
    """A nats-server with exactly the configuration `text`; `{port}` and `{folder}` are filled in."""
    port = free_port()
    config = folder / "n.conf"
    config.write_text(text.replace("{port}", str(port)).replace("{folder}", str(folder)))
    process = await asyncio.create_subprocess_exec(find_binary(), "-c", str(config), stderr=asyncio.subprocess.DEVNULL)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            await asyncio.sleep(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


def node_config(url, **nats):
    return build(
        {
            "metadata": {
                "product_id": "demo",
                "version_tag": "v0.1.0",
                "workflow_name": "flow",
                "process_name": "mix",
            },
            "nats": {"url": url, "inputs": [f"{STREAM}.door"], "start_timeout": 1, **nats},
            "runner": {"health": {"port": -1}},
        }
    )


async def start(config):
    node = Node(ProcessType.TASK)
    node.handlers["default"] = print
    service = build_service(node, config)
    try:
        await service.start()
    finally:
        await service.stop()


async def test_nobody_there():
    with pytest.raises(BrokerError, match=r"The NATS server at 127.0.0.1:\d+ cannot be used"):
        await start(node_config(f"127.0.0.1:{free_port()}"))


async def test_a_server_without_jetstream(tmp_path):
    async with server(tmp_path, 'listen: "127.0.0.1:{port}"') as url:
        with pytest.raises(NoJetStreamError, match="runs without JetStream"):
            await start(node_config(url))


SECURED = """
listen: "127.0.0.1:{port}"
jetstream { store_dir: "{folder}/js" }
authorization { users: [ { user: ann, password: secret } ] }
"""


async def test_weakness_25_wrong_credentials_are_refused_without_being_shown(tmp_path):
    async with server(tmp_path, SECURED) as url:
        with pytest.raises(BrokerRefusedError, match="refuses our credentials") as caught:
            await start(node_config(url, user="ann", password="wrong-one"))
        assert "wrong-one" not in str(caught.value)
        client = await connect(Nats(url=url, user="ann", password="secret"), name="t")
        await client.close()
        client = await connect(Nats(url=f"nats://ann:secret@{url}"), name="t")
        await client.close()


async def test_weakness_25_a_connection_may_be_encrypted_and_both_sides_checked(tmp_path):
    ca = Authority(tmp_path)
    ca.issue("server")
    certificate, key = ca.issue("client")
    text = """
    listen: "127.0.0.1:{port}"
    jetstream { store_dir: "{folder}/js" }
    tls { cert_file: "{folder}/server.crt", key_file: "{folder}/server.key", ca_file: "{folder}/ca.crt", verify: true }
    """
    async with server(tmp_path, text) as url:
        settings = Nats(
            url=f"tls://{url}",
            ca=str(ca.certificate),
            certificate=str(certificate),
            key=str(key),
        )
        client = await connect(settings, name="t")
        await require_jetstream(client, url)
        await client.close()
        with pytest.raises(BrokerError):
            await connect(Nats(url=f"tls://{url}", start_timeout=1), name="t")


async def test_a_stream_that_is_missing(tmp_path):
    broker = Broker(BrokerSettings(tmp_path))
    await broker.start()
    try:
        with pytest.raises(StreamMissingError, match=f"There is no stream {STREAM}"):
            await start(node_config(broker.url))
    finally:
        await broker.stop()


async def test_an_input_no_stream_holds_and_a_bucket_that_is_missing(rig):
    flow = await rig()
    values = flow.config("mix")
    values["nats"]["inputs"] = ["elsewhere.x"]
    with pytest.raises(StreamMissingError, match=r"holds the input elsewhere\.x"):
        await start(build(values))
    values = flow.config("mix")
    values["centralized_configuration"]["workflow"]["bucket"] = "nowhere"
    with pytest.raises(BucketMissingError, match="no key-value bucket nowhere"):
        await start(build(values))
    values = flow.config("mix")
    values["nats"]["object_store"] = "nowhere"
    with pytest.raises(BucketMissingError, match="no object store nowhere"):
        await start(build(values))


def test_a_task_without_inputs():
    node = Node(ProcessType.TASK)
    node.handlers["default"] = print
    with pytest.raises(NoInputsError, match="has no inputs"):
        build_service(node, node_config("x").model_copy(update={"nats": Nats(url="x")}))


async def test_a_stream_of_another_owner_is_refused_and_nothing_is_left_behind(rig):
    flow = await rig()
    other = make_plan(parse((await _manifest(flow)).replace("name: flow", "name: other")), "demo", flow.url)
    await flow.js.add_stream(name="demo_v0_1_0_other", subjects=["theirs"])
    before = {info.config.name for info in await flow.js.streams_info()}
    with pytest.raises(StreamTakenError, match="retention"):
        await provision(flow.js, other)
    assert {info.config.name for info in await flow.js.streams_info()} == before


async def test_subjects_that_overlap_a_foreign_stream_are_refused(rig):
    flow = await rig()
    other = make_plan(parse((await _manifest(flow)).replace("name: flow", "name: other")), "demo", flow.url)
    await flow.js.add_stream(name="theirs", subjects=["demo_v0_1_0_other.>"])
    with pytest.raises(StreamTakenError, match="overlap"):
        await provision(flow.js, other)


async def _manifest(flow):
    return """
version: v0.1.0
description: x
workflows:
  - name: flow
    type: data
    processes:
      - {name: door, type: trigger, image: x, subscriptions: [out]}
      - {name: out, type: exit, image: x, subscriptions: [door]}
"""


async def test_provisioning_twice_changes_nothing_and_keeps_values(rig):
    flow = await rig()
    bucket = await flow.js.key_value("key-store_demo_v0_1_0")
    await bucket.put("gain", b"7")
    await flow.feed("door", ["kept"])
    await provision(flow.js, flow.plan)
    assert (await bucket.get("gain")).value == b"7"
    assert (await flow.js.stream_info(STREAM)).state.messages == 1


async def test_unread_messages_are_not_deleted_without_being_told_to(rig):
    flow = await rig()
    await flow.feed("door", ["precious"])
    with pytest.raises(UnreadMessagesError, match="1 messages of demo"):
        await remove(flow.js, flow.plan, purge=False)
    assert (await flow.js.stream_info(STREAM)).state.messages == 1
    gone = await remove(flow.js, flow.plan, purge=True)
    assert STREAM in gone
    left = {info.config.name for info in await flow.js.streams_info()}
    assert left == {"KV_key-store_demo"}  # the global bucket lives as long as the product


@pytest.mark.parametrize("key", ["", "a b", ".a", "a.", "a*", "ü", "a\nb"])
async def test_a_key_with_illegal_characters_is_refused_before_it_is_sent(rig, key):
    flow = await rig()
    config = (await flow.start("mix")).sdk.centralized_config
    with pytest.raises(BadKeyError, match="letters, digits"):
        await config.set_config(key, "x")
    with pytest.raises(BadKeyError):
        await config.get_config(key)


async def test_a_taken_port_is_a_sentence(tmp_path):
    with contextlib.closing(__import__("socket").create_server(("127.0.0.1", 0))) as taken:
        broker = Broker(BrokerSettings(tmp_path, port=taken.getsockname()[1]))
        with pytest.raises(BrokerError, match="the port is taken"):
            await broker.start()


async def test_stream_and_consumers_are_as_the_document_says(rig):
    flow = await rig()
    config = (await flow.js.stream_info(STREAM)).config
    assert config.retention == api.RetentionPolicy.INTEREST
    assert set(config.subjects) == {f"{STREAM}.{name}{tail}" for name in ("door", "mix", "out") for tail in ("", ".*")}
    assert config.duplicate_window == 120
    consumer = (await flow.js.consumer_info(STREAM, f"{STREAM}-door-mix")).config
    assert consumer.deliver_group == f"{STREAM}-door-mix"
    assert consumer.deliver_policy == api.DeliverPolicy.NEW
    assert consumer.ack_policy == api.AckPolicy.EXPLICIT
    names = {info.config.name for info in await flow.js.streams_info()}
    assert {f"OBJ_{STREAM}_pics", "KV_key-store_demo", "KV_key-store_demo_v0_1_0_flow_mix"} <= names
    assert (await flow.js.stream_info(f"OBJ_{STREAM}_pics")).config.max_age == 5 * 86400
