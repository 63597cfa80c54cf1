"""AWS IoT against mosquitto with certificates on both sides, and a small stand-in for AWS's own rules."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fieldstation.core.blocking import portal
from fieldstation.core.retry import Backoff
from fieldstation.kit import aws_iot, connect_aws_iot, disconnect_aws_iot, publish_message, subscribe_topic
from fieldstation.kit.aws_iot import AWSIoTClient
from fieldstation.kit.aws_jobs import Jobs
from fieldstation.kit.aws_provision import provision
from fieldstation.kit.aws_requests import AwsRejectedError, AwsTimeoutError
from fieldstation.kit.aws_shadow import Shadow
from fieldstation.kit.mqtt import MqttClient, MqttSettings, tls_context
from fieldstation.testing.aws import AwsIotRules, FakeJob

pytestmark = [pytest.mark.timeout(60), pytest.mark.needs("mosquitto")]

QUICK = Backoff(initial_s=0.02, ceiling_s=0.1)


def until(condition: Callable[[], object], deadline_s: float = 10) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def core(make_broker: Any, ca: Any, tmp_path: Path) -> Any:
    """The broker as AWS IoT Core is: a certificate is needed, its name is the user, a policy says which topics."""
    certificate, key = ca.issue("server")
    (tmp_path / "acl").write_text(
        "pattern readwrite dt/%u/#\npattern readwrite $aws/things/%u/#\nuser thing-1\ntopic readwrite lab/#\n"
        "user rules\ntopic readwrite $aws/#\nuser claim\ntopic readwrite $aws/certificates/#\n"
        "topic readwrite $aws/provisioning-templates/#\n"
    )
    return make_broker(
        f"cafile {ca.certificate}\ncertfile {certificate}\nkeyfile {key}\nrequire_certificate true\n"
        f"use_identity_as_username true\ntls_version tlsv1.2\nacl_file {tmp_path / 'acl'}"
    ).start()


@pytest.fixture
def environment(core: Any, ca: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    certificate, key = ca.issue("thing-1")
    for name, value in {
        "AWS_IOT_ENDPOINT": "localhost",
        "AWS_IOT_CLIENT_ID": "thing-1",
        "AWS_IOT_CERT_PATH": certificate,
        "AWS_IOT_KEY_PATH": key,
        "AWS_IOT_CA_PATH": ca.certificate,
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(aws_iot, "_default", None)
    yield
    disconnect_aws_iot()


def test_the_documented_example(core: Any, environment: None) -> None:
    heard: list[tuple[str, Any]] = []
    assert connect_aws_iot(port=core.port) is True
    assert subscribe_topic("lab/status", lambda topic, payload: heard.append((topic, payload))) is True
    assert publish_message("lab/status", {"status": "running", "temperature": 25.5}) is True
    until(lambda: heard == [("lab/status", {"status": "running", "temperature": 25.5})])


def test_wildcards_several_callbacks_and_all_kinds_of_payload(core: Any, environment: None) -> None:
    heard: list[Any] = []
    assert connect_aws_iot(port=core.port)
    subscribe_topic("lab/+/x", lambda topic, payload: heard.append((1, payload)), 1)
    subscribe_topic("lab/+/x", lambda topic, payload: heard.append((2, payload)), 1)
    subscribe_topic("lab/#", lambda topic, payload: 1 / 0)
    for message in ("text", b"\xff", {"a": [1]}, 5):
        assert publish_message("lab/1/x", message, 1)
    until(lambda: len(heard) == 8)
    assert [payload for number, payload in heard if number == 1] == ["text", b"\xff", {"a": [1]}, 5]


def test_it_comes_back_after_the_broker_was_killed_with_its_subscriptions(core: Any, environment: None) -> None:
    heard: list[Any] = []
    assert connect_aws_iot(port=core.port, retry_delay=0.05)
    subscribe_topic("lab/#", lambda topic, payload: heard.append(payload), 1)
    core.kill()
    client = aws_iot._default
    assert client is not None
    until(lambda: not client.connected)
    core.start()
    until(lambda: client.connected)
    assert publish_message("lab/x", "again", 1)
    until(lambda: heard == ["again"])


def test_disconnect_and_connect_again_keeps_the_callbacks(core: Any, environment: None) -> None:
    heard: list[Any] = []
    assert connect_aws_iot(port=core.port)
    subscribe_topic("lab/#", lambda topic, payload: heard.append(payload), 1)
    disconnect_aws_iot()
    assert publish_message("lab/x", "nobody") is False
    assert connect_aws_iot(port=core.port)
    assert publish_message("lab/x", "again", 1)
    until(lambda: heard == ["again"])


def test_true_means_accepted(core: Any, ca: Any, tmp_path: Path) -> None:
    stranger = type(ca)(tmp_path / "stranger", "Stranger")
    certificate, key = stranger.issue("thing-1")
    client = AWSIoTClient("localhost", core.port, "x", certificate, key, ca.certificate, 0, 0.05)
    assert client.connect() is False
    assert client.connection_error
    assert client.connected is False


def test_port_443_offers_mqtt_by_alpn(ca: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import ssl

    certificate, key = ca.issue("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["x-amzn-mqtt-ca"])
    import socket

    offered: list[str | None] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            sock, _ = server.accept()
            with context.wrap_socket(sock, server_side=True) as line:
                offered.append(line.selected_alpn_protocol())

        thread = threading.Thread(target=serve)
        thread.start()
        own, own_key = ca.issue("thing-1")
        client = AWSIoTClient("localhost", 443, "x", own, own_key, ca.certificate, 0, 0.05)
        settings = client._settings()
        import dataclasses

        monkeypatch.setattr(client, "_settings", lambda: dataclasses.replace(settings, port=server.getsockname()[1]))
        assert client.connect() is False
        thread.join()
    assert offered == ["x-amzn-mqtt-ca"]


@contextlib.asynccontextmanager
async def connected(core: Any, ca: Any, name: str) -> AsyncIterator[MqttClient]:
    tls = tls_context(ca.certificate, *ca.issue(name))
    async with MqttClient(
        MqttSettings(host="localhost", port=core.port, client_id=name, tls=tls, backoff=QUICK)
    ) as mqtt:
        yield mqtt


@contextlib.asynccontextmanager
async def aws(core: Any, ca: Any) -> AsyncIterator[tuple[MqttClient, AwsIotRules]]:
    async with connected(core, ca, "rules") as backend, connected(core, ca, "thing-1") as thing:
        rules = AwsIotRules(backend, lambda name: tuple(p.read_text() for p in ca.issue(name)))
        await rules.start()
        yield thing, rules


@pytest.mark.parametrize("name", [None, "led"])
async def test_a_shadow_is_updated_read_compared_and_deleted(core: Any, ca: Any, name: str | None) -> None:
    async with aws(core, ca) as (thing, _):
        shadow = Shadow(thing, "thing-1", name)
        deltas: asyncio.Queue[tuple[dict[str, Any], int]] = asyncio.Queue()
        await shadow.on_delta(lambda difference, version: deltas.put_nowait((difference, version)))
        assert await shadow.get() is None
        assert (await shadow.update(reported={"t": 19, "mode": "auto"}))["version"] == 1
        await shadow.update(desired={"t": 21})
        assert await deltas.get() == ({"t": 21}, 2)
        await shadow.update(reported={"t": 21, "mode": None}, version=2)
        document = await shadow.get()
        assert document is not None
        assert document["state"] == {"reported": {"t": 21}, "desired": {"t": 21}}
        with pytest.raises(AwsRejectedError, match="409"):
            await shadow.update(reported={"t": 0}, version=1)
        await shadow.delete()
        assert await shadow.get() is None


async def test_jobs_are_taken_done_and_reported(core: Any, ca: Any) -> None:
    async with aws(core, ca) as (thing, rules):
        jobs = Jobs(thing, "thing-1")
        announced: asyncio.Queue[Any] = asyncio.Queue()
        await jobs.on_next(announced.put_nowait)
        assert await jobs.start_next() is None
        await rules.add_job("thing-1", FakeJob("j1", {"do": "update"}))
        assert (await announced.get()).id == "j1"
        await rules.add_job("thing-1", FakeJob("j2", {"do": "reboot"}))
        assert await jobs.pending() == ["j1", "j2"]
        job = await jobs.start_next()
        assert job is not None
        assert job.document == {"do": "update"}
        await jobs.update(job, "SUCCEEDED", took="3 s")
        assert rules.jobs["thing-1"][0].status == "SUCCEEDED"
        with pytest.raises(AwsRejectedError):
            await jobs.update(job, "FAILED")
        assert (await jobs.get("j2")) is not None
        with pytest.raises(AwsRejectedError, match="404"):
            await jobs.get("j3")


async def test_a_claim_certificate_becomes_one_of_the_things_own(core: Any, ca: Any, tmp_path: Path) -> None:
    async with aws(core, ca) as (_, rules):
        async with connected(core, ca, "claim") as claim:
            made = await provision(claim, "fleet", {"SerialNumber": "7"}, tmp_path / "own")
        assert rules.things == [made.thing]
        assert made.key.stat().st_mode & 0o777 == 0o600
        tls = tls_context(ca.certificate, made.certificate, made.key)
        async with MqttClient(MqttSettings(host="localhost", port=core.port, client_id=made.thing, tls=tls)) as thing:
            await Shadow(thing, made.thing).update(reported={"hello": 1})


async def test_no_answer_is_a_sentence_that_names_the_topic(core: Any, ca: Any) -> None:
    async with connected(core, ca, "thing-1") as thing:
        with pytest.raises(AwsTimeoutError, match=r"things/thing-1/shadow/get within 0\.1 s"):
            await Shadow(thing, "thing-1", timeout_s=0.1).get()


def test_a_plain_script_uses_shadow_and_jobs(core: Any, ca: Any, environment: None) -> None:
    async def backend() -> None:
        async with connected(core, ca, "rules") as mqtt:
            rules = AwsIotRules(mqtt)
            await rules.start()
            rules.jobs["thing-1"] = [FakeJob("j", {"do": "it"})]
            ready.set()
            await stop.wait()

    ready, stop = threading.Event(), asyncio.Event()
    import concurrent.futures

    running: concurrent.futures.Future[None] = asyncio.run_coroutine_threadsafe(backend(), portal.loop)
    assert ready.wait(10)
    client = AWSIoTClient(port=core.port)
    assert client.connect()
    shadow = client.shadow()
    assert shadow.update(reported={"t": 1})["version"] == 1
    document = shadow.get()
    assert document is not None
    job = client.jobs().start_next()
    assert job is not None
    client.jobs().update(job, "SUCCEEDED")
    assert client.jobs().pending() == []
    shadow.delete()
    client.disconnect()
    portal.loop.call_soon_threadsafe(stop.set)
    running.result(10)


def test_amazons_own_client_and_ours_understand_each_other(core: Any, ca: Any, environment: None) -> None:
    from awscrt import mqtt as crt
    from awsiot import mqtt_connection_builder

    heard_by_us: list[Any] = []
    heard_by_them: list[bytes] = []
    assert connect_aws_iot(port=core.port)
    subscribe_topic("lab/from-them", lambda topic, payload: heard_by_us.append(payload), 1)
    certificate, key = ca.issue("thing-1")
    theirs = mqtt_connection_builder.mtls_from_path(
        endpoint="localhost", port=core.port, cert_filepath=str(certificate), pri_key_filepath=str(key),
        ca_filepath=str(ca.certificate), client_id="awsiotsdk", clean_session=True,
    )  # fmt: skip
    theirs.connect().result(10)
    subscribed, _ = theirs.subscribe(
        "lab/from-us", crt.QoS.AT_LEAST_ONCE, lambda topic, payload, **_: heard_by_them.append(payload)
    )
    subscribed.result(10)
    published, _ = theirs.publish("lab/from-them", '{"a": 1}', crt.QoS.AT_LEAST_ONCE)
    published.result(10)
    assert publish_message("lab/from-us", {"b": 2}, 1)
    until(lambda: heard_by_us == [{"a": 1}] and heard_by_them == [b'{"b": 2}'])
    theirs.disconnect().result(10)
