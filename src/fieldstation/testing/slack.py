"""A Slack for tests: Web API, Socket Mode, buttons, reactions, rate limits; on loopback, in a thread, no dependency.

with FakeSlack() as slack:
    slack.set_environment(monkeypatch)
    request = ask_for_approval("Go?")
    slack.press(request["ts"], "approve", user="U_ADA")
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import itertools
import json
import socket
import struct
import threading
import urllib.parse
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

BOT_TOKEN = "xoxb-fake"  # noqa: S105 - the fake's own, opens nothing
APP_TOKEN = "xapp-fake"  # noqa: S105 - as above
BOT_ID = "U_BOT"


class _Environment(Protocol):
    def setenv(self, name: str, value: str) -> None: ...


@dataclass
class Message:
    """One posted message as it stands now; `history` has what it said before."""

    ts: str
    channel: str
    text: str
    blocks: list[dict[str, Any]] = field(default_factory=list)
    reactions: dict[str, list[str]] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)

    def as_slack(self) -> dict[str, Any]:
        """Return it as Slack's API does."""
        reactions = [{"name": n, "users": u, "count": len(u)} for n, u in self.reactions.items()]
        return {"type": "message", "ts": self.ts, "text": self.text, "blocks": self.blocks, "reactions": reactions}


class FakeSlack:
    """`calls` is what was asked for, `messages` what stands in the channels, `whispers` what only one user sees."""

    def __init__(self, channels: tuple[str, ...] = ("#general",)) -> None:
        self.channels = {name: f"C{number:03}" for number, name in enumerate(channels)}
        self.messages: dict[str, Message] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.whispers: list[tuple[str, str]] = []
        self.users = {"U_ADA": "ada", "U_BOB": "bob", BOT_ID: "fieldstation"}
        self.envelopes_acknowledged: set[str] = set()
        self.changed = threading.Condition()
        self._troubles: deque[tuple[str, int | str]] = deque()
        self._numbers = itertools.count(1)
        self._lines: list[socket.socket] = []
        self._server: http.server.ThreadingHTTPServer | None = None

    # -- life

    def __enter__(self) -> Self:
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                fake._web(self)

            def do_GET(self) -> None:
                fake._link(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name="fake-slack", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self.cut_lines()
            self._server.shutdown()
            self._server.server_close()

    @property
    def base_url(self) -> str:
        """What goes into SLACK_API_URL."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_address[1]}/api/"

    def set_environment(self, environment: _Environment, *, buttons: bool = True) -> None:
        """Point the documented variables here; `environment` is pytest's monkeypatch."""
        environment.setenv("SLACK_API_URL", self.base_url)
        environment.setenv("SLACK_BOT_TOKEN", BOT_TOKEN)
        environment.setenv("SLACK_APP_TOKEN", APP_TOKEN if buttons else "")
        environment.setenv("DEFAULT_SLACK_CHANNEL", next(iter(self.channels)))

    # -- what people and the network do

    def press(self, ts: str, which: str, user: str = "U_ADA", *, timeout_s: float = 10) -> None:
        """Press the button whose value is `which` (`approve`, `deny`); returns once the app has acknowledged it."""
        message = self.messages[ts]
        action = next(
            element
            for block in message.blocks
            for element in block.get("elements", ())
            if element.get("value", "").partition(":")[0] == which
        )
        payload = {
            "type": "block_actions",
            "user": {"id": user, "username": self.users.get(user, user)},
            "team": {"id": "T1"},
            "api_app_id": "A1",
            "channel": {"id": message.channel},
            "container": {"type": "message", "message_ts": ts, "channel_id": message.channel},
            "message": message.as_slack(),
            "actions": [{**{k: action[k] for k in ("action_id", "value") if k in action}, "type": "button"}],
        }
        envelope = f"E{next(self._numbers)}"
        with self.changed:
            if not self.changed.wait_for(lambda: self._lines, timeout_s):
                raise TimeoutError("no app listens in Socket Mode")
            # Slack hands each press to one connection only.
            _send_text(self._lines[0], {"type": "interactive", "envelope_id": envelope, "payload": payload})
            if not self.changed.wait_for(lambda: envelope in self.envelopes_acknowledged, timeout_s):
                raise TimeoutError("the app did not acknowledge the press")

    def react(self, ts: str, name: str, user: str = "U_ADA") -> None:
        """Put the reaction `name` (`+1`, `-1`, `+1::skin-tone-3`) on a message."""
        with self.changed:
            self.messages[ts].reactions.setdefault(name, []).append(user)

    def rate_limit(self, times: int = 1, retry_after_s: int = 1) -> None:
        """Answer the next calls with 429 and Retry-After."""
        self._troubles.extend([("429", retry_after_s)] * times)

    def fail(self, error: str, times: int = 1) -> None:
        """Answer the next calls with `{"ok": false, "error": ...}`."""
        self._troubles.extend([("error", error)] * times)

    def drop(self, times: int = 1) -> None:
        """Close the next calls' connections without an answer."""
        self._troubles.extend([("drop", 0)] * times)

    def cut_lines(self) -> None:
        """Break all Socket Mode lines, as Slack does now and then."""
        with self.changed:
            lines, self._lines = self._lines, []
        for line in lines:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    def wait_for(self, count: int = 1, timeout_s: float = 10) -> list[Message]:
        """Return the messages once there are `count` of them."""
        with self.changed:
            if not self.changed.wait_for(lambda: len(self.messages) >= count, timeout_s):
                raise TimeoutError(f"{len(self.messages)} messages came, not {count}")
            return list(self.messages.values())

    def wait_for_text(self, words: str, timeout_s: float = 10) -> Message:
        """Return the first message that says `words` (in its text or blocks)."""

        def found() -> Message | None:
            whole = ((m, m.text + json.dumps(m.blocks, ensure_ascii=False)) for m in self.messages.values())
            return next((m for m, text in whole if words in text), None)

        with self.changed:
            if not self.changed.wait_for(lambda: found() is not None, timeout_s):
                raise TimeoutError(f"no message says {words!r}: {[m.text for m in self.messages.values()]}")
            message = found()
            assert message is not None
            return message

    # -- Web API

    def _web(self, request: http.server.BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        kind = request.headers.get("Content-Type", "")
        form = dict(urllib.parse.parse_qsl(body.decode())) if "json" not in kind else {}
        arguments: dict[str, Any] = form or json.loads(body or b"{}")
        method = request.path.rpartition("/")[2]
        with self.changed:
            self.calls.append((method, arguments))
            trouble = self._troubles.popleft() if self._troubles else None
            if trouble is not None and trouble[0] == "drop":
                request.close_connection = True
                self.changed.notify_all()
                return
            if trouble is not None and trouble[0] == "429":
                answer, status, retry = {"ok": False, "error": "ratelimited"}, 429, str(trouble[1])
            else:
                error = str(trouble[1]) if trouble is not None else self._refusal(request, method, arguments)
                answer = {"ok": False, "error": error} if error else {"ok": True, **self._do(method, arguments)}
                status, retry = 200, None
            self.changed.notify_all()
        data = json.dumps(answer).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(data)))
        if retry is not None:
            request.send_header("Retry-After", retry)
        request.end_headers()
        request.wfile.write(data)

    def _refusal(self, request: Any, method: str, arguments: dict[str, Any]) -> str | None:
        token = str(request.headers.get("Authorization", "")).removeprefix("Bearer ") or arguments.get("token")
        if token != (APP_TOKEN if method == "apps.connections.open" else BOT_TOKEN):
            return "invalid_auth"
        channel = arguments.get("channel")
        if channel is not None and channel not in self.channels and channel not in self.channels.values():
            return "channel_not_found"
        ts = arguments.get("ts") or arguments.get("timestamp")
        if method in ("chat.update", "reactions.get") and ts not in self.messages:
            return "message_not_found"
        return None if hasattr(self, "_do_" + method.replace(".", "_")) else "unknown_method"

    def _do(self, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = getattr(self, "_do_" + method.replace(".", "_"))(arguments)
        return result

    def _do_auth_test(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"user_id": BOT_ID, "team_id": "T1", "bot_id": "B1", "user": "fieldstation"}

    def _do_users_info(self, arguments: dict[str, Any]) -> dict[str, Any]:
        user = arguments.get("user", "")
        return {
            "user": {
                "id": user,
                "name": self.users.get(user, user),
                "profile": {"display_name": self.users.get(user, user)},
            }
        }

    def _do_chat_postMessage(self, arguments: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - Slack's name
        ts = f"1700000000.{next(self._numbers):06}"
        channel = self.channels.get(arguments["channel"], arguments["channel"])
        self.messages[ts] = Message(ts, channel, str(arguments.get("text", "")), _blocks(arguments))
        return {"ts": ts, "channel": channel, "message": self.messages[ts].as_slack()}

    def _do_chat_update(self, arguments: dict[str, Any]) -> dict[str, Any]:
        message = self.messages[arguments["ts"]]
        message.history.append(message.text)
        message.text, message.blocks = str(arguments.get("text", "")), _blocks(arguments)
        return {"ts": message.ts, "channel": message.channel}

    def _do_chat_postEphemeral(self, arguments: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - Slack's name
        self.whispers.append((str(arguments["user"]), str(arguments.get("text", ""))))
        return {"message_ts": f"1700000000.{next(self._numbers):06}"}

    def _do_reactions_get(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"type": "message", "message": self.messages[arguments["timestamp"]].as_slack()}

    def _do_conversations_history(self, arguments: dict[str, Any]) -> dict[str, Any]:
        found = [m.as_slack() for m in self.messages.values() if m.ts == arguments.get("latest", m.ts)]
        return {"messages": found[::-1]}

    def _do_apps_connections_open(self, arguments: dict[str, Any]) -> dict[str, Any]:
        assert self._server is not None
        return {"url": f"ws://127.0.0.1:{self._server.server_address[1]}/link"}

    # -- Socket Mode: a WebSocket (RFC 6455), text frames only

    def _link(self, request: http.server.BaseHTTPRequestHandler) -> None:
        key = request.headers.get("Sec-WebSocket-Key", "")
        magic = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()  # noqa: S324 - RFC 6455
        request.send_response(101, "Switching Protocols")
        request.send_header("Upgrade", "websocket")
        request.send_header("Connection", "Upgrade")
        request.send_header("Sec-WebSocket-Accept", base64.b64encode(magic).decode())
        request.end_headers()
        request.close_connection = True
        line = request.connection
        _send_text(line, {"type": "hello", "num_connections": 1, "connection_info": {"app_id": "A1"}})
        with self.changed:
            self._lines.append(line)
            self.changed.notify_all()
        try:
            while (frame := _read_frame(request.rfile)) is not None:
                self._heard(line, *frame)
        except OSError:
            pass
        finally:
            with self.changed:
                if line in self._lines:
                    self._lines.remove(line)

    def _heard(self, line: socket.socket, opcode: int, data: bytes) -> None:
        if opcode == 9:
            line.sendall(bytes([0x8A, len(data)]) + data)
        elif opcode == 1:
            with self.changed, contextlib.suppress(ValueError):
                self.envelopes_acknowledged.add(json.loads(data).get("envelope_id", ""))
                self.changed.notify_all()


def _blocks(arguments: dict[str, Any]) -> list[dict[str, Any]]:
    blocks = arguments.get("blocks") or []
    parsed: list[dict[str, Any]] = json.loads(blocks) if isinstance(blocks, str) else blocks
    return parsed


def _send_text(line: socket.socket, message: dict[str, Any]) -> None:
    data = json.dumps(message).encode()
    head = bytes([0x81, len(data)]) if len(data) < 126 else b"\x81\x7e" + struct.pack(">H", len(data))
    line.sendall(head + data)


def _read_frame(stream: Any) -> tuple[int, bytes] | None:
    head = stream.read(2)
    if len(head) < 2 or head[0] & 0x0F == 8:
        return None
    length = head[1] & 0x7F
    if length == 126:
        (length,) = struct.unpack(">H", stream.read(2))
    elif length == 127:
        (length,) = struct.unpack(">Q", stream.read(8))
    mask = stream.read(4) if head[1] & 0x80 else bytes(4)
    data = bytes(byte ^ mask[index % 4] for index, byte in enumerate(stream.read(length)))
    return head[0] & 0x0F, data
