"""What the uplinks put on the wire, and what they take off it; the formats are named in their modules."""

from __future__ import annotations

import json

import pytest

from fieldstation.station.config import NATSConfig
from fieldstation.station.errors import PoisonMessageError
from fieldstation.station.store import QueueRow
from fieldstation.station.uplinks import aws_iot, jetstream, tenta, thingsboard

DATA = '{"variant":"data","data":{"t":1.5,"name":"x"}}'
LOG = '{"variant":"log","level":"WARNING","subject":"roof - WARNING - hot","body":"very"}'
FOREIGN = '{"general":{"config_revision":4,"software_version":"1.2.3"}}'


def row(body, at=1_700_000_000.25, revision=3):
    return QueueRow(7, "abc-7", at, 0, body, revision)


def answer(status):
    return f'{{"variant":"config","status":"{status}","config":{FOREIGN}}}'


def sent(body):
    return json.loads(thingsboard.telemetry(row(body)))


def test_thingsboard_data_are_telemetry_of_the_time_they_were_measured():
    assert sent(DATA) == {"ts": 1700000000250, "values": {"t": 1.5, "name": "x"}}


def test_thingsboard_logs_and_config_answers_are_telemetry_too():
    assert sent(LOG)["values"] == {"logging": {"level": "WARNING", "subject": "roof - WARNING - hot", "body": "very"}}
    assert sent(answer("startup"))["values"] == {
        "configuration": {"status": "startup", "config": json.loads(answer("startup"))}
    }


@pytest.mark.parametrize(
    ("message", "config"),
    [
        ({"configuration": {"general": {}}}, {"general": {}}),
        ({"shared": {"configuration": {"general": {}}}}, {"general": {}}),
        ({"deleted": ["configuration"]}, None),
        ({"shared": {}}, None),
        ({"targetTemperature": 3}, None),
        ([1], None),
        ("x", None),
    ],
)
def test_thingsboard_a_config_is_found_in_both_shapes_and_nothing_else_is_one(message, config):
    assert thingsboard.config_in(message) == config


def test_thingsboard_hears_changes_and_the_answer_to_its_request():
    # Fault 7: without the second topic a config set while the station was offline is never seen.
    assert "v1/devices/me/attributes/response/+" in thingsboard.ThingsboardUplink.subscriptions(None)
    assert "v1/devices/me/attributes" in thingsboard.ThingsboardUplink.subscriptions(None)


def test_fault_02_delayed_data_keep_the_time_of_measurement():
    topic, element = tenta.element(row(DATA, at=1_600_000_000.5), 3)
    assert topic == "measurements"
    assert element == {"value": {"t": 1.5}, "revision": 3, "timestamp": 1_600_000_000.5}


def test_tenta_logs_have_the_documented_severity_and_text():
    for level, severity in tenta.SEVERITY.items():
        _, element = tenta.element(row(LOG.replace("WARNING", level, 1)), 3)
        assert element["severity"] == severity
    assert element["message"] == "roof - WARNING - hot\n\nvery"


def test_tenta_log_text_is_cut_where_the_server_would_refuse_it():
    _, element = tenta.element(row(LOG.replace("very", "x" * 20_000)), 3)
    assert len(element["message"]) == 16_384


@pytest.mark.parametrize(("status", "success"), [("accepted", True), ("rejected", False)])
def test_tenta_answers_acknowledge_the_revision_that_was_pushed(status, success):
    assert tenta.element(row(answer(status)), 3) == (
        "acknowledgments", {"revision": 4, "success": success, "timestamp": 1_700_000_000.25},
    )  # fmt: skip


@pytest.mark.parametrize("body", [answer("startup"), answer("received"), '{"variant":"data","data":{"a":"text"}}'])
def test_fault_01_what_tenta_has_no_place_for_is_passed_over_and_blocks_nothing(body):
    assert tenta.element(row(body), 3) is None


def test_tenta_a_negative_revision_is_left_out():
    assert "revision" not in tenta.element(row(DATA), -1)[1]


def test_tenta_a_key_that_the_server_would_refuse_is_named():
    with pytest.raises(ValueError, match="Temp"):
        tenta.element(row('{"variant":"data","data":{"Temp C":1.5}}'), 3)


@pytest.mark.parametrize(
    "body", ["", "{", "[]", '{"variant":"data"}', '{"variant":"log"}', '{"variant":"data","data":{"t":NaN}}', "null"]
)
def test_fault_09_a_row_that_nobody_understands_is_poison_and_no_crash(body):
    with pytest.raises(PoisonMessageError):
        thingsboard.telemetry(row(body))


def test_aws_messages_carry_their_unique_id():
    uplink = object.__new__(aws_iot.AwsIotUplink)
    uplink._stem = "dt/station/roof"
    topic, payload, _ = uplink.encode(row(DATA))
    assert topic == "dt/station/roof/data"
    assert json.loads(payload) == {"id": "abc-7", "timestamp": 1_700_000_000.25, "body": json.loads(DATA)}
    with pytest.raises(PoisonMessageError, match="bytes"):
        uplink.encode(row(DATA.replace("x", "x" * 200_000)))


def test_nats_subjects_hold_the_station_as_one_token():
    section = NATSConfig(servers=["nats://127.0.0.1:4222"], subject_prefix="lab.station")
    assert jetstream.subjects(section, "roof.1 *>") == {
        "data": "lab.station.roof_1___.data", "log": "lab.station.roof_1___.log",
        "answer": "lab.station.roof_1___.answer", "config": "lab.station.roof_1___.config",
        "status": "lab.station-status.roof_1___",
    }  # fmt: skip


def test_nats_messages_are_published_under_the_id_of_their_row():
    uplink = object.__new__(jetstream.NatsUplink)
    uplink._subjects = {"data": "station.roof.data"}
    subject, payload, key = uplink.encode(row(DATA))
    assert (subject, key) == ("station.roof.data", "abc-7")
    assert json.loads(payload) == {
        "id": "abc-7", "timestamp": 1_700_000_000.25, "revision": 3, "body": json.loads(DATA),
    }  # fmt: skip
