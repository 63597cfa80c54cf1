from __future__ import annotations

from fieldstation.station.secrets import masked, secret_values, unmasked

STORED = {"backend": {"mqtt_connection": {"password": "p1", "username": "u"}}, "updater": {"access_token": "t1"}}


def test_what_names_a_secret_is_masked_and_nothing_else():
    assert masked(STORED) == {
        "backend": {"mqtt_connection": {"password": "***", "username": "u"}}, "updater": {"access_token": "***"},
    }  # fmt: skip
    assert masked({"key_file": "a.pem", "token": None}) == {"key_file": "a.pem", "token": None}


def test_a_mask_that_comes_back_keeps_the_stored_secret():
    assert unmasked(masked(STORED), STORED) == STORED


def test_a_new_secret_replaces_the_stored_one():
    new = {"backend": {"mqtt_connection": {"password": "p2", "username": "u"}}}
    assert unmasked(new, STORED)["backend"]["mqtt_connection"]["password"] == "p2"


def test_a_mask_where_nothing_is_stored_stays_and_three_stars_in_text_are_no_mask():
    assert unmasked({"uplinks": {"x": {"password": "***"}}, "note": "***"}, STORED) == {
        "uplinks": {"x": {"password": "***"}}, "note": "***",
    }  # fmt: skip


def test_all_secrets_are_found():
    assert sorted(secret_values(STORED | {"list": [{"api_key": "k"}]})) == ["k", "p1", "t1"]
