from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from fieldstation.core.errors import ConfigError
from fieldstation.kit.mqtt_model import (
    MqttFileError,
    MqttSettings,
    MqttTopicError,
    check_filter,
    check_topic,
    settings_from_environment,
    tls_context,
    topic_matches,
)


@pytest.mark.parametrize(
    ("pattern", "topic", "matches"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/c", False),
        ("a/+", "a/b", True),
        ("a/+", "a/b/c", False),
        ("a/+", "a/", True),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("#", "a/b", True),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("$SYS/#", "$SYS/x", True),
        ("$aws/things/+/shadow/#", "$aws/things/pi/shadow/update/delta", True),
        ("$share/group/a/+", "a/b", True),
        ("a", "a/b", False),
        ("a/b", "a", False),
    ],
)
def test_wildcards_match_as_the_mqtt_standard_says(pattern: str, topic: str, matches: bool) -> None:
    assert topic_matches(pattern, topic) is matches


LEVEL = st.sampled_from(["a", "b", "", "$x"])


@given(
    st.lists(st.sampled_from(["a", "b", "", "+"]), min_size=1, max_size=4),
    st.booleans(),
    st.lists(LEVEL, min_size=1, max_size=4),
)
def test_wildcards_match_as_paho_matches_them(levels: list[str], rest: bool, topic: list[str]) -> None:
    pattern = "/".join([*levels, "#"] if rest else levels)
    assert topic_matches(pattern, "/".join(topic)) == topic_matches_sub(pattern, "/".join(topic))


@pytest.mark.parametrize("topic", ["", "a/+", "#", "a\0b", "x" * 70_000])
def test_a_message_cannot_go_to_a_wildcard_or_a_broken_topic(topic: str) -> None:
    with pytest.raises(MqttTopicError):
        check_topic(topic)


@pytest.mark.parametrize("pattern", ["", "a/#/b", "a#", "a+/b", "x\0"])
def test_a_wrong_filter_is_refused_before_the_broker_sees_it(pattern: str) -> None:
    with pytest.raises(MqttTopicError):
        check_filter(pattern)


def test_the_documented_environment_names_the_broker() -> None:
    settings = settings_from_environment({"MQTT_BROKER": "broker.lab", "MQTT_PORT": "1884"})
    assert settings.address == ("broker.lab", 1884)
    assert settings_from_environment({}).address == ("127.0.0.1", 1883)
    assert settings_from_environment({"MQTT_BROKER": "a"}, host="b").host == "b"


@pytest.mark.parametrize("port", ["abc", "-1", "70000", "0", "\u0661"])
def test_a_wrong_port_is_one_sentence_that_names_it(port: str) -> None:
    with pytest.raises(ConfigError, match=r"(?i)port"):
        settings_from_environment({"MQTT_PORT": port})


def test_a_kept_session_needs_a_client_id() -> None:
    with pytest.raises(ConfigError, match="client_id"):
        MqttSettings(clean_session=False)


def test_the_password_is_not_in_the_settings_text() -> None:
    assert "hunter2" not in repr(MqttSettings(password="hunter2"))


def test_a_missing_certificate_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MqttFileError, match=r"gone\.crt"):
        tls_context(certificate=tmp_path / "gone.crt")


def test_a_broken_ca_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("no certificate")
    with pytest.raises(MqttFileError, match=r"ca\.crt"):
        tls_context(ca=tmp_path / "ca.crt")
