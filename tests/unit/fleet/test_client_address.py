from __future__ import annotations

import pytest

from fieldstation.core.errors import ConfigError
from fieldstation.fleet.client.address import parse, parse_all


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://localhost:8080", "http://localhost:8080"),
        ("localhost:8080/", "http://localhost:8080"),
        ("https://farm.example/icefarm/", "https://farm.example/icefarm"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_addresses_are_normalised(text: str, url: str) -> None:
    assert parse(text).url == url


def test_a_token_in_the_address_wins_and_is_sent_as_basic() -> None:
    address = parse("http://ann:fst_s%40cret@host:1", "fst_other")
    assert address.url == "http://host:1"
    assert address.token == "fst_s@cret"
    assert address.headers == {"Authorization": "Basic YW5uOmZzdF9zQGNyZXQ="}


def test_a_given_token_is_sent_as_bearer_and_never_shown() -> None:
    address = parse("http://host:1", "fst_secret")
    assert address.headers == {"Authorization": "Bearer fst_secret"}
    assert "secret" not in repr(address)
    assert parse("http://host:1").headers == {}


@pytest.mark.parametrize(
    "text", ["ftp://host", "http://", "http://host:port", "http://host:99999", "http://ann:fst_x@"]
)
def test_what_is_no_address_is_one_sentence_without_the_secret(text: str) -> None:
    with pytest.raises(ConfigError, match="the address") as caught:
        parse(text)
    assert "fst_x" not in str(caught.value)


def test_several_controls_keep_their_order() -> None:
    assert [a.url for a in parse_all("http://a:1, b:2")] == ["http://a:1", "http://b:2"]
    assert [a.url for a in parse_all(["http://a:1"])] == ["http://a:1"]
    with pytest.raises(ConfigError, match="no server is named"):
        parse_all(" , ")
