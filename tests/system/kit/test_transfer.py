"""File transfer over real sockets: the documented example, hostile peers, many peers, sessions of ours."""

import contextlib
import os
import random
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fieldstation.kit import transfer_files, transfer_session
from fieldstation.kit.mqtt import tls_context
from fieldstation.kit.transfer import (
    connect_socket,
    receive_file,
    receive_file_name,
    send_file,
    send_file_name,
)
from fieldstation.kit.transfer_listener import TransferListener
from fieldstation.kit.transfer_model import (
    HeaderError,
    Limits,
    NoSpaceError,
    PeerClosedError,
    SizeLimitError,
    TargetError,
    TransferConnectError,
    TransferError,
    TransferRefusedError,
    TransferTimeoutError,
    UnsafeNameError,
)
from fieldstation.kit.transfer_session import HELLO, TransferClient
from fieldstation.kit.transfer_socket import finish_sending
from fieldstation.testing import free_port

pytestmark = pytest.mark.timeout(30)


def until(condition: Callable[[], object], deadline_s: float = 10) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_the_documented_pair_of_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, here = tmp_path / "server", tmp_path / "client"
    there.mkdir()
    here.mkdir()
    content = random.randbytes(300_000)
    (there / "data.csv").write_bytes(content)
    monkeypatch.chdir(here)
    port = free_port()

    def server() -> None:
        server_socket = connect_socket(host="0.0.0.0", port=port)
        with server_socket:
            send_file_name(server_socket, "data.csv")
            send_file(server_socket, there / "data.csv")

    thread = threading.Thread(target=server)
    thread.start()
    client_socket = connect_when_there(port)
    with client_socket:
        file_name = receive_file_name(client_socket)
        receive_file(client_socket, file_name)
    thread.join()
    assert (here / "data.csv").read_bytes() == content


def connect_when_there(port: int) -> socket.socket:
    end = time.monotonic() + 10
    while True:
        try:
            return connect_socket(host="localhost", port=port)
        except TransferConnectError:
            assert time.monotonic() < end
            time.sleep(0.01)


def test_the_older_shape_returns_the_socket_or_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as sock:
        assert connect_socket(sock, "127.0.0.1", server.getsockname()[1]) is sock
        assert sock.gettimeout() is None
    with socket.socket() as sock:
        assert connect_socket(sock, "127.0.0.1", free_port()) is None
    with socket.socket() as sock:
        assert connect_socket(sock, "nowhere.invalid", 5000) is None


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 0), ("nowhere.invalid", 5000), ("127.0.0.1", 99999)])
def test_no_connection_is_one_sentence(host: str, port: int) -> None:
    with pytest.raises(TransferConnectError, match=f"{host}:{port}"):
        connect_socket(host=host, port=port)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "outside").write_text("untouched")
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def listener(folder: Path) -> Iterator[TransferListener]:
    with TransferListener(folder, limits=Limits(timeout_s=0.5, max_size=10_000_000)) as running:
        yield running


def world(folder: Path) -> dict[str, str]:
    """Everything there is around the folder, so that a file anywhere else shows."""
    return {
        p.relative_to(folder.parent).as_posix(): "" if p.is_dir() else p.read_bytes().decode("latin-1")
        for p in folder.parent.rglob("*")
    }


def wait_for_the_end(peer: socket.socket) -> None:
    # Closing while bytes of ours are unread resets the connection: both are an end.
    with contextlib.suppress(ConnectionResetError):
        while peer.recv(4096):
            pass


BEFORE = {"outside": "untouched", "in": ""}

HOSTILE = {
    "path upwards": b"../../x\n2\nhi",
    "path upwards one": b"../outside\n2\nhi",
    "absolute": b"/tmp/fieldstation-hostile\n2\nhi",
    "NUL": b"a\0b\n2\nhi",
    "backslashes": b"..\\..\\x\n2\nhi",
    "drive": b"C:x\n2\nhi",
    "hidden": b".bashrc\n2\nhi",
    "empty name": b"\n2\nhi",
    "not UTF-8": b"\xff\xfe\n2\nhi",
    "negative size": b"a\n-5\nhi",
    "huge size": b"a\n" + b"9" * 19 + b"\nhi",
    "absurd size": b"a\n" + b"9" * 40 + b"\nhi",
    "size above the limit": b"a\n10000001\nhi",
    "size with underscores": b"a\n1_0\n0123456789",
    "full-width digits": "a\n\uff12\nhi".encode(),
    "name omitted": b"2\nhi",
    "truncated content": b"a\n10\nhi",
    "truncated size": b"a\n1",
    "truncated name": b"abc",
    "wrong hello": HELLO + b"x\n",
    "garbage session": HELLO + b"\n{]\n",
    "session with a list": HELLO + b"\n[]\n",
    "session without fields": HELLO + b'\n{"file": 5}\n',
    "session path": HELLO + b'\n{"file": "../x", "size": 1, "mtime": 1}\n',
    "session deep garbage": HELLO + b"\n" + b"[" * 4000 + b"\n",
}


@pytest.mark.parametrize("sent", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_peer_writes_nothing_and_the_next_peer_is_served(
    listener: TransferListener, folder: Path, sent: bytes
) -> None:
    with socket.create_connection(listener.address) as peer:
        peer.sendall(sent)
        with contextlib.suppress(OSError):  # it may have hung up already
            peer.shutdown(socket.SHUT_WR)
        wait_for_the_end(peer)
    assert world(folder) == BEFORE
    with socket.create_connection(listener.address) as peer:
        peer.sendall(b"good.txt\n2\nhi")
    until(lambda: (folder / "good.txt").exists())
    assert world(folder) == BEFORE | {"in/good.txt": "hi"}


def test_two_files_back_to_back_and_unicode_names(listener: TransferListener, folder: Path) -> None:
    with socket.create_connection(listener.address) as peer:
        peer.sendall("ä 数.txt\n2\nhib\n0\nc\n3\n\n\n\n".encode())
    until(lambda: (folder / "c").exists())
    assert (folder / "ä 数.txt").read_bytes() == b"hi"
    assert (folder / "b").read_bytes() == b""
    assert (folder / "c").read_bytes() == b"\n\n\n"


def send_slowly(peer: socket.socket, piece: bytes, pause_s: float, times: int) -> None:
    for _ in range(times):
        peer.sendall(piece)
        time.sleep(pause_s)


def test_a_ten_megabyte_header_is_cut_off_early(listener: TransferListener, folder: Path) -> None:
    with socket.create_connection(listener.address) as peer:
        peer.settimeout(5)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            send_slowly(peer, b"x" * 1024, 0, 10_000)
    assert world(folder) == BEFORE


def test_a_peer_that_drips_its_header_is_dropped(listener: TransferListener, folder: Path) -> None:
    with socket.create_connection(listener.address) as peer, pytest.raises((BrokenPipeError, ConnectionResetError)):
        send_slowly(peer, b"x", 0.02, 500)
    assert world(folder) == BEFORE


def test_a_peer_that_drips_its_content_is_dropped(listener: TransferListener, folder: Path) -> None:
    with socket.create_connection(listener.address) as peer:
        peer.sendall(b"a\n5000000\n")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            send_slowly(peer, b"x", 0.02, 500)
    until(lambda: world(folder) == BEFORE)


def test_a_silent_peer_gives_its_place_back(folder: Path) -> None:
    with (
        TransferListener(folder, limits=Limits(timeout_s=0.2), max_peers=1) as listener,
        socket.create_connection(listener.address),
        socket.create_connection(listener.address) as second,
    ):
        second.sendall(b"a\n2\nhi")
        until(lambda: (folder / "a").exists())


def test_a_link_in_the_folder_leads_nowhere(listener: TransferListener, folder: Path) -> None:
    (folder / "link").symlink_to(folder.parent / "outside")
    (folder / "dir").symlink_to(folder.parent)
    with socket.create_connection(listener.address) as peer:
        peer.sendall(b"link\n2\nhi")
    until(lambda: not (folder / "link").is_symlink())
    assert (folder / "link").read_bytes() == b"hi"
    (folder.parent / "source").write_text("x")
    with TransferClient(*listener.address) as client, pytest.raises(TransferRefusedError, match="outside"):
        client.send(folder.parent / "source", "dir/new")
    assert (folder.parent / "outside").read_text() == "untouched"
    assert not (folder.parent / "new").exists()


def test_a_hundred_peers_at_once_all_arrive(folder: Path) -> None:
    contents = {f"file{n}": random.randbytes(20_000 + n) for n in range(100)}
    with TransferListener(folder, max_peers=16) as listener:

        def send(name: str) -> None:
            with socket.create_connection(listener.address) as peer:
                peer.sendall(name.encode() + b"\n%d\n" % len(contents[name]) + contents[name])

        threads = [threading.Thread(target=send, args=(name,)) for name in contents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        until(lambda: sum(1 for p in folder.iterdir() if not p.name.startswith(".")) == 100)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == contents


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair()


def test_a_full_disk_is_said_before_anything_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer_files.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 5})())
    ours, theirs = pair()
    with ours, theirs:
        theirs.sendall(b"10\n0123456789")
        with pytest.raises(NoSpaceError, match="10 bytes"):
            receive_file(ours, "a", folder=folder)
    assert world(folder) == BEFORE


def test_a_disk_that_fills_while_receiving_leaves_nothing_behind(folder: Path) -> None:
    # A file size limit makes write() fail as a full disk does, in a process of its own.
    script = f"""
import resource, signal, socket
from fieldstation.kit.transfer import receive_file
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
a, b = socket.socketpair()
b.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
b.sendall(b"150000\\n" + bytes(150_000))
try:
    receive_file(a, "big", folder={str(folder)!r})
except Exception as error:
    print(type(error).__name__, error)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("TargetError"), result.stderr
    assert world(folder) == BEFORE


@pytest.mark.parametrize(
    ("sent", "name", "error"),
    [
        (b"2\nhi", "../x", UnsafeNameError),
        (b"-1\nhi", "x", HeaderError),
        (b"999\nhi", "x", SizeLimitError),
        (b"99\nhi", "x", PeerClosedError),
        (b"2\nhi", "", HeaderError),
    ],
)
def test_receive_file_raises_one_sentence_and_leaves_nothing(folder: Path, sent: bytes, name: str, error: Any) -> None:
    ours, theirs = pair()
    with ours:
        with theirs:
            theirs.sendall(sent)
        with pytest.raises(error) as raised:
            receive_file(ours, name, folder=folder, max_size=100)
    assert isinstance(raised.value, TransferError)
    assert world(folder) == BEFORE


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    ours, theirs = pair()
    with ours, theirs:
        theirs.sendall(b"2\nhi")
        with pytest.raises(TargetError, match="nowhere"):
            receive_file(ours, "a", folder=tmp_path / "nowhere")


def test_a_stalled_peer_times_out() -> None:
    ours, theirs = pair()
    with ours, theirs:
        with pytest.raises(TransferTimeoutError):
            receive_file_name(ours, timeout_s=0.05)
        theirs.sendall(b"5\nab")
        with pytest.raises(TimeoutError):
            receive_file(ours, 5, timeout_s=0.05)


def test_half_a_gigabyte_takes_flat_memory_in_both_processes(folder: Path) -> None:
    big = folder.parent / "big"
    with big.open("wb") as file:
        file.truncate(512 << 20)
    script = """
import sys
from fieldstation.kit.transfer import connect_socket, receive_file, send_file
role, port, path = sys.argv[1:]
if role == "send":
    sock = connect_socket(host="0.0.0.0", port=int(port))
    send_file(sock, path)
else:
    import time
    for _ in range(500):
        try:
            sock = connect_socket(host="127.0.0.1", port=int(port))
            break
        except ConnectionError:
            time.sleep(0.02)
    from pathlib import Path
    receive_file(sock, Path(path))
[peak] = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(int(peak.split()[1]) // 1024)
"""
    port = str(free_port())
    run = lambda role, path: subprocess.Popen(  # noqa: E731 - a name for one expression
        [sys.executable, "-c", script, role, port, str(path)], stdout=subprocess.PIPE, text=True
    )
    sender, receiver = run("send", big), run("receive", folder / "copy")
    memory = [int(p.communicate(timeout=25)[0]) for p in (sender, receiver)]
    assert (folder / "copy").stat().st_size == 512 << 20
    assert max(memory) < 30, f"MB at most: {memory}"


# -- sessions of ours


def test_a_file_sent_in_a_session_is_there_when_send_returns(listener: TransferListener, folder: Path) -> None:
    source = folder.parent / "source"
    source.write_bytes(random.randbytes(3_000_000))
    os.utime(source, ns=(1_700_000_000_000_000_000, 1_700_000_000_123_456_789))
    with TransferClient(*listener.address) as client:
        client.send(source)
        assert (folder / "source").read_bytes() == source.read_bytes()
        assert (folder / "source").stat().st_mtime_ns == 1_700_000_000_123_456_789
        client.send(source, "sub/other name")
    assert (folder / "sub" / "other name").read_bytes() == source.read_bytes()


def test_a_cut_line_is_resumed_where_it_broke(listener: TransferListener, folder: Path) -> None:
    source = folder.parent / "source"
    source.write_bytes(random.randbytes(5_000_000))
    with pytest.raises(OSError), TransferClient(*listener.address) as client:  # noqa: PT012 - the error may come from either line

        def cut(done: int, total: int) -> None:
            if done >= 3_000_000:
                raise OSError("cable pulled")

        client.send(source, progress=cut)
    assert not (folder / "source").exists()
    until(lambda: not _locked(folder))
    first: list[int] = []
    with TransferClient(*listener.address) as client:
        client.send(source, progress=lambda done, total: first.append(done))
    assert first[0] >= 3_000_000
    assert (folder / "source").read_bytes() == source.read_bytes()
    assert sorted(p.name for p in folder.iterdir()) == ["source"]


def _locked(folder: Path) -> bool:
    import fcntl

    for part in folder.glob(".fieldstation-*"):
        with part.open("r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
    return False


def test_a_part_that_is_not_the_beginning_of_the_file_is_sent_anew(listener: TransferListener, folder: Path) -> None:
    from fieldstation.kit.transfer_receive import part_of

    source = folder.parent / "source"
    source.write_bytes(b"right content")
    status = source.stat()
    part_of(folder / "source", status.st_size, status.st_mtime_ns).write_bytes(b"wrong")
    with TransferClient(*listener.address) as client:
        client.send(source)
    assert (folder / "source").read_bytes() == b"right content"


def test_damage_on_the_way_is_noticed_and_nothing_is_kept(listener: TransferListener, folder: Path) -> None:
    with socket.create_connection(listener.address) as peer:
        peer.sendall(
            HELLO
            + b'\n{"file": "a", "size": 2, "mtime": 1}\n{"from": 0}\nhi{"sha256": "'
            + b"0" * 64
            + b'"}\n{"end": true}\n'
        )
        answer = b""
        while chunk := peer.recv(4096):
            answer += chunk
    assert b"checksum" in answer
    assert world(folder) == BEFORE


def test_a_folder_is_synchronised_and_the_second_time_nothing_moves(listener: TransferListener, folder: Path) -> None:
    source = folder.parent / "tree"
    for name in ("a", "b/c", "b/d/e"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    (source / "link").symlink_to("/etc/passwd")
    with TransferClient(*listener.address) as client:
        assert client.sync(source).sent == ["a", "b/c", "b/d/e"]
        (source / "b/c").write_text("changed")
        again = client.sync(source)
    assert again.sent == ["b/c"]
    assert again.had == ["a", "b/d/e"]
    assert (folder / "b/c").read_text() == "changed"
    assert not (folder / "link").exists()


def test_a_refused_file_does_not_end_a_sync(folder: Path) -> None:
    source = folder.parent / "tree"
    source.mkdir()
    (source / "big").write_bytes(b"x" * 101)
    (source / "small").write_bytes(b"x")
    with TransferListener(folder, limits=Limits(max_size=100)) as listener, TransferClient(*listener.address) as client:
        report = client.sync(source)
    assert report.sent == ["small"]
    assert "limit is 100" in report.refused["big"]


def test_only_who_knows_the_token_may_send(folder: Path) -> None:
    source = folder.parent / "source"
    source.write_text("x")
    with TransferListener(folder, token="right") as listener:
        for token in (None, "wrong"):
            with pytest.raises(TransferError, match="token"), TransferClient(*listener.address, token=token):
                pass
        with socket.create_connection(listener.address) as legacy:
            legacy.sendall(b"a\n2\nhi")
            wait_for_the_end(legacy)
        assert world(folder)["in"] == ""
        with TransferClient(*listener.address, token="right") as client:
            client.send(source)
    assert (folder / "source").read_text() == "x"


def test_over_tls_both_modes_work_and_a_stranger_is_refused(folder: Path, ca: Any, tmp_path: Path) -> None:
    certificate, key = ca.issue("server")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    source = folder.parent / "source"
    source.write_bytes(random.randbytes(1_000_000))
    with TransferListener(folder, tls=tls) as listener:
        port = listener.address[1]
        with TransferClient("localhost", port, tls=tls_context(ca.certificate)) as client:
            client.send(source)
        with (
            pytest.raises(TransferConnectError, match=r"certificate|self.signed"),
            TransferClient("localhost", port, tls=tls_context(type(ca)(tmp_path / "other").certificate)),
        ):
            pass
        with (
            socket.create_connection(("localhost", port)) as plain,
            tls_context(ca.certificate).wrap_socket(plain, server_hostname="localhost") as sock,
        ):
            send_file_name(sock, "legacy")
            send_file(sock, source)
            finish_sending(sock)
        assert (folder / "legacy").exists()
    assert (folder / "source").read_bytes() == (folder / "legacy").read_bytes() == source.read_bytes()


def test_a_legacy_peer_is_told_apart_and_a_session_with_one_gives_advice(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as old:

        def answer() -> None:
            sock, _ = old.accept()
            with sock:
                sock.recv(100)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(TransferConnectError, match="legacy mode"), TransferClient(*old.getsockname()):
            pass
        thread.join()


def test_a_garbage_server_is_an_error_for_the_session_client() -> None:
    for garbage in (b"HTTP/1.1 400 Bad Request\r\n", b"{}\n", b'{"nonce": null}\n[]\n', b"x" * 10_000):
        with socket.create_server(("127.0.0.1", 0)) as server:

            def answer(server: socket.socket = server, garbage: bytes = garbage) -> None:
                sock, _ = server.accept()
                with sock:
                    sock.sendall(garbage)
                    sock.settimeout(2)
                    try:
                        while sock.recv(4096):
                            pass
                    except OSError:
                        pass

            thread = threading.Thread(target=answer)
            thread.start()
            with pytest.raises(TransferError), TransferClient(*server.getsockname(), timeout_s=1) as client:
                client.send(Path(__file__))
            thread.join()


def test_a_listener_on_a_port_that_is_taken_says_so(folder: Path, listener: TransferListener) -> None:
    with pytest.raises(TransferConnectError, match=f"Cannot listen on 127.0.0.1:{listener.address[1]}"):
        TransferListener(folder, port=listener.address[1])


def test_the_module_does_not_shadow_the_standard_library() -> None:
    assert transfer_session.socket is socket
