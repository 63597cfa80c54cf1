"""Control's wire without sockets: rows, errors, credentials, addresses, messages of the line."""

from __future__ import annotations

import base64
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from fieldstation.core.errors import FieldstationError, StoreError
from fieldstation.core.security import ForbiddenError, TlsFileError, UnauthorizedError
from fieldstation.fleet import errors
from fieldstation.fleet.hosted import Hosted
from fieldstation.fleet.model import Device, DeviceState, Health, Row
from fieldstation.fleet.store import Store
from fieldstation.fleet.store.address import parse
from fieldstation.fleet.wire import faults, line_codec
from fieldstation.fleet.wire.guard import OwnNames, presented
from fieldstation.fleet.wire.rows import reservation_row
from fieldstation.fleet.wire.server import HttpServer

UNTIL = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("url", "shown", "ip", "port"),
    [
        ("http://10.0.0.5:8081", "http://lease:T@10.0.0.5:8081", "lease:T@10.0.0.5", 8081),
        ("https://bench.lab", "https://lease:T@bench.lab:443", "lease:T@bench.lab", 443),
        ("http://[::1]:9", "http://lease:T@[::1]:9", "lease:T@[::1]", 9),
    ],
)
def test_rows_speak_both_dialects(url, shown, ip, port):
    row = reservation_row(Row("A1", url, "T", 7, UNTIL))
    assert (row["url"], row["ip"], row["serverport"]) == (shown, ip, port)
    assert row["until"] == "2026-01-31T12:00:00+00:00"


def test_errors_have_the_documented_status_for_get_and_a_precise_one_for_post():
    for error, old, new in (
        (errors.BadRequestError(field="x", problem="y"), 400, 400),
        (errors.BadRequestError(field="x", problem="y", documented_status=500), 500, 400),
        (errors.NotEnoughDevicesError(wanted=1, kind="k", free=0, others=""), 500, 409),
        (errors.UnknownKindError(kind="k", known="none"), 500, 404),
        (errors.UnknownSerialError(serials="s"), 500, 404),
        (errors.NotHeldError(client="c", serials="s"), 500, 404),
        (errors.WorkerUnreachableError(worker="w", what="x"), 500, 503),
        (errors.NotLeaderError(), 503, 503),
        (StoreError(path="p", problem="full"), 500, 503),
        (UnauthorizedError(), 401, 401),
        (ForbiddenError("no"), 403, 403),
        (FieldstationError("?"), 500, 409),
    ):
        assert faults.status_of(error, documented=True) == old, error
        assert faults.status_of(error, documented=False) == new, error


def test_error_bodies_name_code_message_and_field():
    body = faults.body_of(errors.BadRequestError(field="amount", problem="no"))
    assert body == {"error": {"code": "bad_request", "message": "The field amount is wrong: no.", "field": "amount"}}
    assert "field" not in faults.body_of(errors.NotLeaderError())["error"]


def test_a_token_is_the_bearer_or_the_basic_password():
    assert presented("") is None
    assert presented("Bearer fst_x") == "fst_x"
    assert presented("Basic " + base64.b64encode(b"name:fst_x:y").decode()) == "fst_x:y"
    for wrong in ("Basic ???", "Digest abc", "x"):
        assert presented(wrong) == ""


def test_a_server_answers_to_its_names_and_to_bare_addresses():
    names = OwnNames(["bench.lab"])
    assert "bench.lab" in names
    assert "10.1.2.3" in names
    assert "fe80::1" in names
    assert "evil.example" not in names


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("sqlite:///fleet.db", "sqlite"),
        ("/var/lib/fleet.db", "sqlite"),
        ("postgres://u@h/d", "postgresql+psycopg"),
        ("host=h dbname=d password='a b'", "postgresql+psycopg"),
    ],
)
def test_every_spelling_of_a_database_is_understood(text, kind):
    assert parse(text).url.drivername == kind


def test_an_address_is_shown_without_its_password():
    for text in ("postgresql://u:secret@h/d", "host=h password=secret"):
        assert "secret" not in parse(text).shown


def test_a_device_survives_the_line():
    board = SimpleNamespace(serial="A1", health=Health.DEGRADED, reason="slow")
    machine = SimpleNamespace(state=SimpleNamespace(status=DeviceState.TESTING))
    message = Hosted(board, machine, "pico2_ice", ("pulsecount",), {"rev": "2"}).body(3)
    assert line_codec.read(line_codec.DeviceMessage, {**message, "later": "addition"}).to_model("w") == Device(
        "A1", "w", "pico2_ice", DeviceState.TESTING, ("pulsecount",), 3, Health.DEGRADED, "slow", {"rev": "2"}
    )


@pytest.mark.parametrize(
    "url", ["", "ftp://x", "http://", "http://u:p@h", "http://h/path", "javascript:alert(1)", "http://a b"]
)
def test_a_worker_must_advertise_a_plain_address(url):
    with pytest.raises(errors.BadRequestError, match="url"):
        line_codec.read(line_codec.HelloMessage, {"name": "w", "url": url})


def test_threads_that_come_first_share_one_pool(monkeypatch):
    store, made, both = Store("postgresql://nobody@127.0.0.1:1/none"), [], threading.Barrier(2)

    def create():
        made.append(object())
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.3)  # a second one would come in here
        return made[-1]

    monkeypatch.setattr(store, "_create", create)
    with ThreadPoolExecutor(2) as pool:
        assert len(set(pool.map(lambda _: store._connected(), range(2)))) == 1
    assert len(made) == 1


def test_tls_files_that_cannot_be_used_are_named_before_the_port_is_taken(tmp_path):
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    server = HttpServer(None, host="127.0.0.1", port=0, certificate=broken, key=broken)
    with pytest.raises(TlsFileError, match=r"broken\.pem"):
        server.bind()
