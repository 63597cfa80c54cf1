from __future__ import annotations

import json
import math

import pydantic
import pytest

from fieldstation.station.config import ForeignConfig
from fieldstation.station.messages import ConfigMessageBody, DataMessageBody, LogMessageBody, MessageQueueItem


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_json_cannot_say_is_refused_with_its_key(value):
    with pytest.raises(pydantic.ValidationError, match="'pressure'"):
        DataMessageBody(data={"temperature": 1.0, "pressure": value})


@pytest.mark.parametrize("key", ["logging", "configuration"])
def test_the_reserved_keys_are_refused(key):
    with pytest.raises(pydantic.ValidationError, match="reserved"):
        DataMessageBody(data={key: 1})


def test_text_that_is_no_utf8_is_stored_with_replacement_characters():
    body = DataMessageBody(data={"name": b"caf\xe9".decode("utf-8", "surrogateescape"), "raw": b"\xff\xfe"})
    text = body.model_dump_json()
    assert json.loads(text)["data"]["name"].startswith("caf")
    text.encode("utf-8")


def test_text_beyond_ascii_stays_as_it_is():
    assert DataMessageBody(data={"unit": "°C 🌡"}).data == {"unit": "°C 🌡"}


def test_the_variant_comes_first():
    assert LogMessageBody(level="INFO", subject="s", body="b").model_dump_json().startswith('{"variant":"log"')


def test_integers_stay_integers_and_numbers_in_text_stay_text():
    assert DataMessageBody(data={"i": 3, "f": 3.5, "s": "3"}).model_dump_json() == (
        '{"variant":"data","data":{"i":3,"f":3.5,"s":"3"}}'
    )


def test_secrets_in_a_config_message_are_masked_when_it_is_made(today):
    today["updater"]["access_token"] = "ghp_verysecret"
    foreign = ForeignConfig.load_from_string(json.dumps(today))
    text = ConfigMessageBody(status="startup", config=foreign).model_dump_json()
    assert "hunter2!" not in text
    assert "ghp_verysecret" not in text
    assert text.count('"***"') == 2
    assert foreign.model_dump()["backend"]["mqtt_connection"]["password"] == "hunter2!"


def test_a_reason_is_there_only_when_there_is_one(today):
    foreign = ForeignConfig.load_from_string(json.dumps(today))
    assert "reason" not in json.loads(ConfigMessageBody(status="accepted", config=foreign).model_dump_json())
    assert json.loads(ConfigMessageBody(status="rejected", config=foreign, reason="no").model_dump_json())["reason"]


def test_a_queue_item_of_todays_stations_is_read():
    line = '{"timestamp":1700000000.25,"identifier":3,"message_body":{"variant":"data","data":{"t":1.5}}}'
    item = MessageQueueItem.model_validate_json(line)
    assert item.message_body.data == {"t": 1.5}
