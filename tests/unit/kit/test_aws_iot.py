import pytest

from fieldstation.kit import aws_iot
from fieldstation.kit.aws_iot import AWSIoTClient, AwsLimitError, check_limits, parse
from fieldstation.testing.aws import difference, merge


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b"21.5", 21.5),
        (b"plain", "plain"),
        (b"\xff\x00", b"\xff\x00"),
        (b"", ""),
        (b"[" * 5000, "[" * 5000),
    ],
)
def test_a_payload_is_json_else_text_else_bytes(payload: bytes, value: object) -> None:
    assert parse(payload) == value


@pytest.mark.parametrize(
    ("topic", "size", "qos", "words"),
    [
        ("a", 128 * 1024 + 1, 0, "131073 bytes"),
        ("a/" * 8, 1, 0, "7 slashes"),
        ("x" * 257, 1, 0, "256"),
        ("a", 1, 2, "QoS 2"),
    ],
)
def test_what_aws_would_hang_up_for_is_refused_here(topic: str, size: int, qos: int, words: str) -> None:
    with pytest.raises(AwsLimitError, match=words):
        check_limits(topic, size, qos)


def test_the_longest_shadow_topic_is_allowed() -> None:
    check_limits("$aws/things/pi/shadow/name/main/update/accepted".replace("/accepted", ""), 128 * 1024, 1)


def test_settings_come_from_the_documented_environment_and_arguments_win(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENDPOINT", "CLIENT_ID", "CERT_PATH", "KEY_PATH", "CA_PATH"):
        monkeypatch.setenv(f"AWS_IOT_{name}", f"of-{name}")
    client = AWSIoTClient(client_id="mine", cert_path="text/is/fine.pem")
    assert (client.endpoint, client.client_id) == ("of-ENDPOINT", "mine")
    assert (str(client.cert_path), str(client.ca_path)) == ("text/is/fine.pem", "of-CA_PATH")


def test_a_missing_endpoint_or_file_is_false_and_a_sentence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("AWS_IOT_ENDPOINT", raising=False)
    assert AWSIoTClient().connect() is False
    assert "set AWS_IOT_ENDPOINT" in caplog.text
    client = AWSIoTClient("localhost", cert_path="/nowhere/cert.pem", ca_path=__file__, key_path=__file__)
    assert client.connect() is False
    assert "/nowhere/cert.pem" in str(client.connection_error)


def test_publishing_without_a_connection_is_false_and_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws_iot, "_default", None)
    assert aws_iot.publish_message("t", {"a": 1}) is False
    assert aws_iot.subscribe_topic("t", print) is False
    aws_iot.disconnect_aws_iot()


@pytest.mark.parametrize("message", [object(), float("nan"), {1, 2}])
def test_what_is_not_json_is_false_and_not_a_crash(message: object) -> None:
    client = AWSIoTClient("localhost")
    client.client = object()
    assert client.publish("t", message) is False


def test_shadow_rules() -> None:
    assert merge({"a": {"x": 1, "y": 2}, "b": 1}, {"a": {"x": None, "z": 3}, "b": None}) == {"a": {"y": 2, "z": 3}}
    assert difference({"desired": {"t": 5, "n": {"a": 1, "b": 2}}, "reported": {"t": 5, "n": {"a": 1, "b": 3}}}) == {
        "n": {"b": 2}
    }


@pytest.mark.timeout(60)
def test_the_shadow_rules_are_those_of_moto() -> None:
    """A second opinion: moto implements the same documents over HTTP."""
    import json

    import boto3
    from moto import mock_aws

    updates = [
        {"desired": {"t": 20, "led": {"on": True, "colour": "red"}}},
        {"reported": {"t": 19, "led": {"on": True, "colour": "blue"}}},
        {"reported": {"t": 20}, "desired": {"x": 1}},
    ]
    with mock_aws():
        access = {"region_name": "eu-west-1", "aws_access_key_id": "x", "aws_secret_access_key": "x"}
        boto3.client("iot", **access).create_thing(thingName="pi")
        data = boto3.client("iot-data", **access)
        ours: dict[str, object] = {}
        for version, state in enumerate(updates, 1):
            data.update_thing_shadow(thingName="pi", payload=json.dumps({"state": state}))
            theirs = json.loads(data.get_thing_shadow(thingName="pi")["payload"].read())
            ours = merge(ours, state)
            assert theirs["version"] == version
            assert theirs["state"].get("delta", {}) == difference(ours)
            assert {k: v for k, v in theirs["state"].items() if k != "delta"} == ours
