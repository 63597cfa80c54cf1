"""The documented bytes `NAME newline SIZE newline CONTENT`, both directions, part by part."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fieldstation.kit.transfer import (
    receive_file,
    receive_file_name,
    receive_file_size,
    send_file,
    send_file_name,
    send_file_size,
)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def drain(sock: socket.socket) -> bytes:
    data = b""
    while chunk := sock.recv(4096):
        data += chunk
    return data


Pair = tuple[socket.socket, socket.socket]


def test_name_and_file_give_the_documented_bytes(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"hi")
    ours, theirs = pair
    send_file_name(ours, "a.txt")
    send_file(ours, tmp_path / "a.txt")
    ours.shutdown(socket.SHUT_WR)
    assert drain(theirs) == bytes.fromhex("61 2e 74 78 74 0a 32 0a 68 69")


def test_send_file_does_not_send_the_name_and_size_stands_alone(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"hi")
    ours, theirs = pair
    send_file_size(ours, 7)
    send_file(ours, str(tmp_path / "a.txt"))
    ours.shutdown(socket.SHUT_WR)
    assert drain(theirs) == b"7\n2\nhi"


def test_a_path_travels_as_its_base_name(pair: Pair) -> None:
    ours, theirs = pair
    send_file_name(ours, "/data/run 7/ä.csv")
    ours.shutdown(socket.SHUT_WR)
    assert drain(theirs) == "ä.csv\n".encode()


def test_the_byte_after_each_part_is_still_in_the_socket(pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(b"a.txt\n2\nhib.txt\n0\nREST")
    assert receive_file_name(ours) == "a.txt"
    assert receive_file_size(ours) == 2
    assert receive_file(ours, 2) == b"hi"
    assert receive_file_name(ours) == "b.txt"
    assert receive_file_size(ours) == 0
    assert receive_file(ours, 0) == b""
    assert ours.recv(99) == b"REST"


def test_receive_file_by_name_reads_size_and_content_into_the_folder(pair: Pair, tmp_path: Path) -> None:
    ours, theirs = pair
    theirs.sendall(b"2\nhi3\nyou")
    assert receive_file(ours, "a.txt", folder=tmp_path) == tmp_path / "a.txt"
    assert receive_file(ours, tmp_path / "chosen") == tmp_path / "chosen"
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a.txt": b"hi", "chosen": b"you"}


def test_a_header_that_comes_byte_by_byte_is_the_same_header(pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(b"a")
    theirs.sendall(b".txt\n1")
    assert receive_file_name(ours) == "a.txt"
    theirs.sendall(b"2\n")
    assert receive_file_size(ours) == 12


def test_a_closed_connection_gives_an_empty_name_and_a_value_error_for_the_size(pair: Pair) -> None:
    ours, theirs = pair
    theirs.close()
    assert receive_file_name(ours) == ""
    with pytest.raises(ValueError, match="closed"):
        receive_file_size(ours)


def test_half_a_name_is_not_an_empty_name(pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(b"data.c")
    theirs.close()
    with pytest.raises(ConnectionError):
        receive_file_name(ours)


def test_a_peer_that_closes_early_is_a_connection_error(pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(b"abc")
    theirs.close()
    with pytest.raises(ConnectionError, match="3 of 10"):
        receive_file(ours, 10)


def test_a_logger_may_be_given_or_not(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    import logging

    ours, theirs = pair
    with caplog.at_level("INFO"):
        send_file_name(ours, "a", logging.getLogger("mine"))
        assert receive_file_name(theirs, logging.getLogger("mine")) == "a"
    assert len(caplog.records) == 2


def test_the_socket_keeps_the_time_out_its_owner_gave_it(pair: Pair) -> None:
    ours, theirs = pair
    ours.settimeout(7)
    theirs.sendall(b"a\n1\nx")
    receive_file_name(ours)
    receive_file_size(ours)
    receive_file(ours, 1)
    assert ours.gettimeout() == 7
