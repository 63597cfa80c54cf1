import pytest

from fieldstation.stream.errors import ReceiverConfigError
from fieldstation.stream.ublox_config import chip_config, parse_receiver_config

DEVICE = "/dev/null"  # a character device that is everywhere


def parse(**values):
    return parse_receiver_config({"device": DEVICE} | values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "Device path not specified"),
        ({"device": ""}, "Device path not specified"),
        ({"device": 5.0}, "is no text"),
        ({"device": "/dev/no-such-device"}, "does not exist"),
        ({"device": __file__}, "not a character device"),
        ({"device": DEVICE, "baud": -1}, "baud"),
        ({"device": DEVICE, "baud": "fast"}, "baud"),
        ({"device": DEVICE, "f9t_uid": "12345"}, "ten hexadecimal digits"),
        ({"device": DEVICE, "cfg_key_settings": {"a": 1}}, "cfg_key_settings"),
        ({"device": DEVICE, "cfg_key_settings": [{"key": "CFG_X"}]}, "no key and value"),
        ({"device": DEVICE, "apply_to_layers": ["DISK"]}, "apply_to_layers"),
        ({"device": DEVICE, "verify_layer": "DISK"}, "apply_to_layers"),
        ({"device": DEVICE, "position": {"format": "ECEF"}}, "LLH"),
        ({"device": DEVICE, "position": {"format": "LLH", "lat_deg": 1}}, "lon_deg"),
        (
            {"device": DEVICE, "position": {"format": "LLH", "lat_deg": 91, "lon_deg": 0, "height_m": 0, "acc_m": 1}},
            "Earth",
        ),
    ],
)
def test_a_wrong_field_is_named(values, words):
    with pytest.raises(ReceiverConfigError, match=words):
        parse_receiver_config(values)


def test_numbers_from_the_wire_become_whole_again_and_signals_come_first():
    config = parse(
        baud=9600.0,
        cfg_key_settings=[{"key": "CFG_RATE_MEAS", "value": 1000.0}, {"key": "CFG_SIGNAL_GPS_ENA", "value": True}],
        apply_to_layers=["RAM", "FLASH", "RAM"],
    )
    assert config.settings == [("CFG_SIGNAL_GPS_ENA", True), ("CFG_RATE_MEAS", 1000)]
    assert (config.baud, config.layers, config.verify_layer) == (9600, 5, 0)


def test_a_position_becomes_a_fixed_time_mode_in_the_chips_units():
    position = {
        "format": "LLH",
        "lat_deg": 37.342512345,
        "lon_deg": -121.637771239,
        "height_m": 1283.4567,
        "acc_m": 0.05,
    }
    settings = dict(parse(position=position).settings)
    assert settings["CFG_TMODE_MODE"] == 2
    assert settings["CFG_TMODE_LAT"] * 100 + settings["CFG_TMODE_LAT_HP"] == 37342512345
    assert settings["CFG_TMODE_LON"] * 100 + settings["CFG_TMODE_LON_HP"] == -121637771239
    assert settings["CFG_TMODE_HEIGHT"] * 100 + settings["CFG_TMODE_HEIGHT_HP"] == 12834567
    assert settings["CFG_TMODE_FIXED_POS_ACC"] == 500
    assert all(-99 <= settings[key] <= 99 for key in settings if key.endswith("_HP"))


def test_a_chips_entry_is_merged_over_the_global_keys():
    file = {"baud": 1, "f9t_chips": [{"f9t_uid": "aa", "device": "/a"}, {"f9t_uid": "bb", "device": "/b", "baud": 2}]}
    assert chip_config(file, device="/b") == {"baud": 2, "f9t_uid": "bb", "device": "/b"}
    assert chip_config(file, uid="aa")["baud"] == 1
    assert chip_config({"baud": 3}) == {"baud": 3}
    for wrong in ({"uid": "cc"}, {}):
        with pytest.raises(ReceiverConfigError, match="f9t_chips"):
            chip_config(file, **wrong)
