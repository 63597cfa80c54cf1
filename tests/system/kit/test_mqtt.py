import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from fieldstation.core.retry import Backoff
from fieldstation.kit import mqtt_suspects
from fieldstation.kit.mqtt import (
    Message,
    MqttClient,
    MqttConnectError,
    MqttPublishRefusedError,
    MqttRefusedError,
    MqttSettings,
    MqttSubscribeRefusedError,
    MqttTimeoutError,
    MqttTlsError,
    tls_context,
)

pytestmark = [pytest.mark.timeout(30), pytest.mark.needs("mosquitto")]

QUICK = Backoff(initial_s=0.02, ceiling_s=0.1)


def settings(broker: Any, **more: Any) -> MqttSettings:
    return MqttSettings(**{"port": broker.port, "backoff": QUICK} | more)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture(params=["3.1.1", "5"])
def version(request: pytest.FixtureRequest) -> Any:
    return request.param


async def test_publish_returns_when_the_broker_has_it_and_every_matching_handler_hears_it(
    broker: Any, version: Any
) -> None:
    heard: list[tuple[str, str, bytes]] = []
    async with MqttClient(settings(broker, version=version)) as mqtt:

        async def by_level(message: Message) -> None:
            heard.append(("+", message.topic, message.payload))

        await mqtt.subscribe("lab/+/t", by_level, qos=1)
        await mqtt.subscribe("lab/#", lambda m: heard.append(("#", m.topic, m.payload)), qos=1)
        for qos in (0, 1, 2):
            await mqtt.publish(f"lab/{qos}/t", b"\xff", qos)
        await until(lambda: len(set(heard)) == 6)


async def test_json_and_mqtt5_properties_travel(broker: Any) -> None:
    async with MqttClient(settings(broker, version="5")) as mqtt, mqtt.messages("q") as stream:
        await mqtt.publish_json(
            "q", {"t": 21.5}, 1, user_properties=(("unit", "C"),), response_topic="a", correlation_data=b"7"
        )
        message = await anext(stream)
    assert message.json() == {"t": 21.5}
    assert message.user_properties == (("unit", "C"),)
    assert (message.response_topic, message.correlation_data, message.content_type) == ("a", b"7", "application/json")


async def test_subscriptions_and_publishes_outlive_a_killed_broker(broker: Any, version: Any) -> None:
    heard: set[str] = set()
    async with (
        MqttClient(settings(broker, version=version)) as listener,
        MqttClient(settings(broker, version=version)) as speaker,
    ):
        connected = asyncio.Event()
        listener.on_connect(connected.set)
        await listener.subscribe("t/#", lambda m: heard.add(m.text), qos=1)
        broker.kill()
        await until(lambda: not listener.connected and not speaker.connected)
        async with asyncio.TaskGroup() as group:
            for number in range(50):
                group.create_task(speaker.publish("t/x", str(number), 1))
            connected.clear()
            group.create_task(_restart_when(broker, speaker))
        await connected.wait()
        await speaker.publish("t/x", "after", 1)
        await until(lambda: "after" in heard)
    assert speaker.connects == 2


async def _restart_when(broker: Any, client: MqttClient) -> None:
    await until(lambda: client.last_error is not None)
    await asyncio.to_thread(broker.start)


async def test_a_message_in_flight_when_the_line_breaks_is_sent_again(version: Any) -> None:
    """A broker that takes the message and dies before its PUBACK."""
    async with (
        _deaf_broker(version) as (port, publishes),
        MqttClient(MqttSettings(port=port, version=version, backoff=QUICK)) as mqtt,
    ):
        await mqtt.publish("t", b"once", 1)
    assert len(publishes) == 2
    assert publishes[0][0] & 0x08 == 0
    assert publishes[1][0] & 0x08, "the second one says that it is a duplicate"
    assert publishes[0][1:] == publishes[1][1:], "same packet id, same content"


@contextlib.asynccontextmanager
async def _deaf_broker(version: str) -> AsyncIterator[tuple[int, list[bytes]]]:
    publishes: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readexactly(2)
                body = await reader.readexactly(head[1])
                kind = head[0] >> 4
                if kind == 1:
                    writer.write(b"\x20\x03\x00\x00\x00" if version == "5" else b"\x20\x02\x00\x00")
                elif kind == 3:
                    publishes.append(head[:1] + body)
                    if len(publishes) == 1:
                        break
                    writer.write(b"\x40\x02" + body[3:5])
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], publishes


async def test_a_message_is_acknowledged_to_the_broker_only_after_its_handler(broker: Any) -> None:
    kept = settings(broker, client_id="roof", clean_session=False)
    started = asyncio.Event()

    async def never_done(message: Message) -> None:
        started.set()
        await asyncio.Event().wait()

    async with MqttClient(kept) as first:
        await first.subscribe("set", never_done, qos=1)
        async with MqttClient(settings(broker)) as other:
            await other.publish("set", b"config", 1)
        await started.wait()
    second = MqttClient(kept)
    heard: list[bytes] = []
    await second.subscribe("set", lambda m: heard.append(m.payload), qos=1)
    async with second:
        await until(lambda: heard == [b"config"])


async def test_the_last_will_is_said_when_the_client_vanishes_and_not_when_it_leaves(broker: Any) -> None:
    heard: list[str] = []
    will = Message("roof/state", b"gone", 1)
    async with MqttClient(settings(broker)) as watcher:
        await watcher.subscribe("roof/state", lambda m: heard.append(m.text), qos=1)
        async with MqttClient(settings(broker, will=will, birth=Message("roof/state", b"here", 1))):
            await until(lambda: heard == ["here"])
        await watcher.publish("roof/state", b"between", 1)
        await until(lambda: heard == ["here", "between"])
        # A second client with the same id makes the broker throw the first one out.
        async with (
            MqttClient(settings(broker, will=will, client_id="a")),
            MqttClient(settings(broker, client_id="a")),
        ):
            await until(lambda: heard[-1] == "gone")


async def test_a_client_may_start_before_its_broker(make_broker: Any) -> None:
    broker = make_broker()
    mqtt = MqttClient(settings(broker))
    heard: list[str] = []
    await mqtt.start()
    try:
        await mqtt.subscribe("t", lambda m: heard.append(m.text), qos=1)
        await until(lambda: mqtt.last_error is not None)
        await asyncio.to_thread(broker.start)
        await mqtt.publish("t", "hello", 1)
        await until(lambda: heard == ["hello"])
    finally:
        await mqtt.stop()


async def test_a_publish_without_a_line_ends_at_its_deadline_and_is_not_sent_later(make_broker: Any) -> None:
    broker = make_broker()
    mqtt = MqttClient(settings(broker))
    await mqtt.start()
    try:
        with pytest.raises(MqttTimeoutError):
            await mqtt.publish("t", b"late", 1, retain=True, timeout_s=0.05)
        await asyncio.to_thread(broker.start)
        await mqtt.publish("t", b"now", 1, retain=False)
        async with mqtt.messages("t") as stream:
            await mqtt.publish("t", b"then", 1)
            assert (await anext(stream)).payload == b"then"
    finally:
        await mqtt.stop()


async def test_wrong_address_wrong_port_and_silent_broker_are_one_sentence_each() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(MqttConnectError, match=r"no answer within 0\.1 s"):
            async with MqttClient(MqttSettings(port=port, connect_timeout_s=0.1)):
                pass
    with pytest.raises(MqttConnectError, match="refused"):
        async with MqttClient(MqttSettings(port=port, connect_timeout_s=0.3, backoff=QUICK)):
            pass
    with pytest.raises(MqttConnectError, match=r"nowhere\.invalid"):
        async with MqttClient(MqttSettings(host="nowhere.invalid", connect_timeout_s=5, backoff=QUICK)):
            pass


async def test_a_wrong_password_is_refused_at_once(make_broker: Any, version: Any) -> None:
    broker = make_broker("allow_anonymous false").start()
    with pytest.raises(MqttRefusedError, match=r"(?i)not authorized"):
        async with MqttClient(settings(broker, version=version, username="a", password="b")):
            pass


async def test_a_garbage_server_is_an_error_and_not_a_hang() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 100)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(MqttConnectError):
            async with MqttClient(MqttSettings(port=port, connect_timeout_s=1, backoff=QUICK)):
                pass


async def test_what_the_access_list_forbids_is_said(make_broker: Any, tmp_path: Any) -> None:
    (tmp_path / "acl").write_text("topic readwrite ok/#\n")
    broker = make_broker(f"allow_anonymous true\nacl_file {tmp_path / 'acl'}").start()
    async with MqttClient(settings(broker, version="5")) as mqtt:
        with pytest.raises(MqttPublishRefusedError, match="no/x"):
            await mqtt.publish("no/x", b"", 1)
        await mqtt.publish("ok/x", b"", 1)


async def test_a_message_that_makes_the_broker_close_the_line_is_refused_and_the_others_arrive(
    make_broker: Any, version: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # MQTT 3.1.1 has no other refusal; mosquitto closes the line on a packet that is too big.
    monkeypatch.setattr(mqtt_suspects, "CALM_S", 0.1)
    broker = make_broker("allow_anonymous true\nmax_packet_size 1000").start()
    heard: set[str] = set()
    reached: list[bool] = []
    async with MqttClient(settings(broker)) as listener, MqttClient(settings(broker, version=version)) as speaker:
        await listener.subscribe("t", lambda m: heard.add(m.text), qos=1)
        speaker.on_disconnect(lambda _: reached.append(speaker.reached))
        payloads = [str(n) if n not in (3, 7) else f"{n} is too big {'x' * 2000}" for n in range(10)]
        results = await asyncio.gather(*(speaker.publish("t", text, 1) for text in payloads), return_exceptions=True)
        assert [type(result) for result in results] == [
            MqttPublishRefusedError if n in (3, 7) else type(None) for n in range(10)
        ]
        assert "closes the line" in str(results[3])
        assert (reached[0], reached[-1]) == (False, True), "while it searches, the broker is reached"
        await speaker.publish("t", "after", 1)
        await until(lambda: heard == {text for text in payloads if len(text) < 1000} | {"after"})


async def test_a_subscription_the_broker_refuses_is_an_error() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readexactly(2)
                body = await reader.readexactly(head[1])
                if head[0] >> 4 == 1:
                    writer.write(b"\x20\x02\x00\x00")
                elif head[0] >> 4 == 8:
                    writer.write(b"\x90\x03" + body[:2] + b"\x80")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with MqttClient(MqttSettings(port=port)) as mqtt:
            with pytest.raises(MqttSubscribeRefusedError, match="secret"):
                await mqtt.subscribe("secret/#", print)


async def test_tls_checks_the_broker_and_shows_our_certificate(make_broker: Any, ca: Any, version: Any) -> None:
    certificate, key = ca.issue("server")
    broker = make_broker(
        f"cafile {ca.certificate}\ncertfile {certificate}\nkeyfile {key}\nrequire_certificate true\n"
        "use_identity_as_username true"
    ).start()
    thing = tls_context(ca.certificate, *ca.issue("thing-1"))
    big = b"x" * 300_000
    async with (
        MqttClient(settings(broker, host="localhost", tls=thing, version=version)) as mqtt,
        mqtt.messages("t", qos=1) as stream,
    ):
        await asyncio.gather(*(mqtt.publish("t", big, 1) for _ in range(5)))
        for _ in range(5):
            assert (await anext(stream)).payload == big


async def test_a_broker_of_another_ca_or_with_an_expired_certificate_is_refused(
    make_broker: Any, ca: Any, tmp_path: Any
) -> None:
    stranger = type(ca)(tmp_path / "stranger", "Stranger")
    for issuer, trusted, days, word in (
        (stranger, ca, 30, "self.signed|unable to get"),
        (ca, ca, -1, "expired"),
    ):
        certificate, key = issuer.issue("server", days=days)
        broker = make_broker(f"allow_anonymous true\ncertfile {certificate}\nkeyfile {key}").start()
        with pytest.raises(MqttTlsError, match=word):
            async with MqttClient(settings(broker, host="localhost", tls=tls_context(trusted.certificate))):
                pass


async def test_a_missing_client_certificate_is_refused(make_broker: Any, ca: Any) -> None:
    certificate, key = ca.issue("server")
    broker = make_broker(
        f"cafile {ca.certificate}\ncertfile {certificate}\nkeyfile {key}\nrequire_certificate true"
    ).start()
    with pytest.raises(MqttConnectError):
        async with MqttClient(settings(broker, host="localhost", tls=tls_context(ca.certificate))):
            pass


async def test_stopping_while_connecting_to_a_black_hole_is_quick() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mqtt = MqttClient(MqttSettings(port=silent.getsockname()[1], connect_timeout_s=60))
        await mqtt.start()
        accepted, _ = await asyncio.to_thread(silent.accept)
        with accepted:
            async with asyncio.timeout(5):
                await mqtt.stop()
