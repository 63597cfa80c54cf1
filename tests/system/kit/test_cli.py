"""The commands as a user gives them, each a process of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fieldstation.kit.database import Database
from fieldstation.testing import ServerProcess, running, wait_for
from fieldstation.testing.slack import FakeSlack

pytestmark = pytest.mark.timeout(60)


def kit(*words: object, env: dict[str, str] | None = None, ok: bool = True) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, "-m", "fieldstation", "kit", *map(str, words)],
        capture_output=True, text=True, env={**os.environ, **(env or {})}, timeout=30,
    )  # fmt: skip
    assert not ok or done.returncode == 0, done.stderr
    return done


def receiver(*words: object, **more: Any) -> Any:
    return running("fieldstation", "kit", "receive-file", "--port", "0", *map(str, words), **more)


def port_of(server: ServerProcess) -> str:
    return server.url.rpartition(":")[2]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "data.csv"
    path.write_bytes(os.urandom(200_000))
    return path


@pytest.mark.parametrize("mode", [[], ["--legacy"]])
def test_a_file_is_sent_and_received(source: Path, tmp_path: Path, mode: list[str]) -> None:
    with receiver("--dir", tmp_path / "in") as server:
        assert server.url.startswith("tcp://127.0.0.1:")
        assert "sent" in kit("send-file", source, "--port", port_of(server), *mode).stdout
        assert (tmp_path / "in" / "data.csv").read_bytes() == source.read_bytes()
        assert "received" in wait_for(lambda: "received" in server.output and server.output)
        assert server.stop() == 0


def test_a_receiver_ends_after_one_file_on_request(source: Path, tmp_path: Path) -> None:
    with receiver("--dir", tmp_path / "in", "--once") as server:
        kit("send-file", source, "--port", port_of(server), "--name", "other.csv")
        assert server.wait() == 0
    assert (tmp_path / "in" / "other.csv").exists()


def test_a_folder_is_synchronised(source: Path, tmp_path: Path) -> None:
    with receiver("--dir", tmp_path / "in", "--max-size", 300_000) as server:
        tree = tmp_path / "tree"
        (tree / "sub").mkdir(parents=True)
        source.rename(tree / "sub" / "data.csv")
        assert kit("sync", tree, "--port", port_of(server)).stdout == "1 sent, 0 were there, 0 refused\n"
        (tree / "big").write_bytes(bytes(300_001))
        done = kit("sync", tree, "--port", port_of(server), ok=False)
        assert done.stdout == "0 sent, 1 were there, 1 refused\n"
        assert "limit is 300000" in done.stderr
        assert done.returncode == 1


def test_a_token_from_the_environment_or_a_file_opens_the_receiver(source: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("right\n")
    with receiver("--dir", tmp_path / "in", "--host", "0.0.0.0", "--token-file", tmp_path / "token") as server:
        port = port_of(server)
        refused = kit("send-file", source, "--port", port, ok=False)
        assert refused.returncode == 1
        assert refused.stderr.count("\n") == 1
        assert "token" in refused.stderr
        kit("send-file", source, "--port", port, env={"FIELDSTATION_TRANSFER_TOKEN": "right"})


def test_a_plain_sender_that_listens_is_received_from(source: Path, tmp_path: Path) -> None:
    from fieldstation.testing import free_port

    port = free_port()
    sender = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "fieldstation",
            "kit",
            "send-file",
            str(source),
            "--port",
            str(port),
            "--listen",
            "--legacy",
        ]
    )

    def receive() -> bool:
        words = ("receive-file", "--dir", tmp_path / "in", "--port", port, "--connect")
        return kit(*words, ok=False).returncode == 0

    wait_for(receive, 20)
    assert sender.wait(10) == 0
    assert (tmp_path / "in" / "data.csv").read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["receive-file", "--dir", "in", "--port", "0", "--host", "0.0.0.0"], "Refusing to listen on 0.0.0.0"),
        (["receive-file", "--dir", "/proc/nowhere", "--port", "0"], "cannot be written"),
        (["receive-file", "--dir", "in", "--port", "0", "--tls-certificate", "x"], "--tls-key"),
        (["send-file", "nowhere", "--port", "9"], "127.0.0.1:9"),
        (["send-file", "x", "--port", "9", "--listen"], "add --legacy"),
        (["sync", "nowhere", "--port", "9", "--legacy"], "plain framing"),
        (["mqtt", "publish", "a", "b", "--port", "9", "--timeout", "0.1"], "127.0.0.1:9"),
        (["mqtt", "publish", "a/#", "b", "--port", "9"], "not a valid MQTT topic name"),
        (["mqtt", "publish", "a", "b", "--ca", "nowhere.crt"], "nowhere.crt"),
        (["db", "tables", "nowhere.db"], "there is no such file"),
    ],
)
def test_what_cannot_work_is_one_sentence(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = kit(*words, ok=False)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_receiver_on_a_taken_port_says_so(tmp_path: Path) -> None:
    with receiver("--dir", tmp_path / "in") as server:
        done = kit("receive-file", "--dir", tmp_path / "in", "--port", port_of(server), ok=False)
        assert done.returncode == 1
        assert "Address already in use" in done.stderr


def test_a_receiver_stops_cleanly_in_the_middle_of_a_transfer(tmp_path: Path) -> None:
    import socket

    with (
        receiver("--dir", tmp_path / "in") as server,
        socket.create_connection(("127.0.0.1", int(port_of(server)))) as peer,
    ):
        peer.sendall(b"big\n1000000\n" + bytes(1000))
        wait_for(lambda: any((tmp_path / "in").iterdir()))
        server.process.send_signal(signal.SIGTERM)
        assert server.wait(10) == 0
    assert list((tmp_path / "in").iterdir()) == []


@pytest.mark.needs("mosquitto")
def test_messages_are_published_and_printed(mosquitto: Any) -> None:
    env = {"MQTT_BROKER": "127.0.0.1", "MQTT_PORT": str(mosquitto.port)}
    listener = ServerProcess(["fieldstation", "kit", "mqtt", "subscribe", "lab/#", "--count", "2", "--json"], env=env)
    try:
        wait_for(lambda: "listening" in listener.output, 20)
        assert kit("mqtt", "publish", "lab/t", '{"celsius": 21.5}', env=env).stdout == "acknowledged\n"
        kit("mqtt", "publish", "lab/x", "text", "--mqtt5", env=env)
        assert listener.wait(20) == 0
    finally:
        listener.kill()
    lines = [json.loads(line) for line in listener.output.splitlines() if line.startswith("{")]
    assert [(line["topic"], line["payload"]) for line in lines] == [("lab/t", {"celsius": 21.5}), ("lab/x", "text")]


@pytest.mark.needs("mosquitto")
def test_a_message_for_a_broker_that_is_away_is_kept_and_sent_by_the_next_command(
    mosquitto: Any, tmp_path: Path
) -> None:
    words = ("mqtt", "publish", "lab/t", "x", "--outbox", tmp_path / "o.db", "--port", mosquitto.port, "--timeout", "1")
    mosquitto.kill()
    assert "1 wait for the broker" in kit(*words).stdout
    mosquitto.start()
    assert kit(*words[:-1], "10").stdout == "acknowledged\n"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with Database(tmp_path / "lab.db") as db:
        for n in range(3):
            db.append("readings", {"time": datetime(2026, 1, 31, n, tzinfo=UTC), "celsius": 20.5 + n, "note": "[x]"})
    return tmp_path / "lab.db"


def test_a_store_is_looked_into_and_exported(store: Path, tmp_path: Path) -> None:
    assert json.loads(kit("db", "tables", store, "--json").stdout) == {
        "table": "readings", "rows": 3, "columns": "time, celsius, note",
    }  # fmt: skip
    rows = kit("db", "query", store, "SELECT * FROM readings WHERE celsius > 21", "--json").stdout.splitlines()
    assert json.loads(rows[0]) == {"time": "2026-01-31T01:00:00+00:00", "celsius": 21.5, "note": "[x]"}
    assert "[x]" in kit("db", "query", store, "SELECT note FROM readings").stdout
    assert kit("db", "export", store, "SELECT * FROM readings", tmp_path / "o.csv").stdout.startswith("3 rows")
    assert kit("db", "check", store).stdout == "ok\n"
    kit("db", "backup", store, tmp_path / "copy.db")
    assert (
        kit("db", "query", tmp_path / "copy.db", "SELECT count(*) AS n FROM readings", "--json").stdout == '{"n": 3}\n'
    )
    wrong = kit("db", "query", store, "SELECT * FROM nowhere", ok=False)
    assert wrong.stderr.endswith("no such table: nowhere.\n")


@pytest.fixture
def slack() -> Iterator[tuple[FakeSlack, dict[str, str]]]:
    with FakeSlack() as fake:
        env: dict[str, str] = {}
        fake.set_environment(type("Environment", (), {"setenv": lambda self, name, value: env.update({name: value})})())
        yield fake, env


def test_a_message_is_sent_and_a_question_is_answered(slack: tuple[FakeSlack, dict[str, str]]) -> None:
    fake, env = slack
    assert kit("slack", "send", "hello", env=env).stdout == "sent\n"
    asking = ServerProcess(["fieldstation", "kit", "slack", "ask", "Heat?", "--timeout", "20"], env=env)
    fake.press(fake.wait_for_text("Heat?").ts, "deny")
    assert asking.wait(20) == 1
    assert asking.output.strip().endswith("denied")
    without = kit("slack", "send", "hello", env={**env, "SLACK_BOT_TOKEN": ""}, ok=False)
    assert without.returncode == 1
    assert "set SLACK_BOT_TOKEN" in without.stderr
