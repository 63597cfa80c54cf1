"""Our own mode between two of ours: checksum, resume after a cut line, folders, a token, an acknowledgement on disk.

After a first line that no file name can be (it holds a NUL) each side sends JSON lines; file content is raw bytes:

    > (NUL)fieldstation-transfer/1
    < {"nonce": "..." | null}
    > {"proof": HMAC-SHA256(token, nonce)}                   < {"ok": true}          (only when there was a nonce)
    > {"file": "a/b.csv", "size": 9, "mtime": ns, "sync": false}
    < {"have": true} | {"offset": 4, "prefix": SHA-256 of those 4 bytes} | {"error": "..."}
    > {"from": 4}, 5 bytes, {"sha256": of all 9}             < {"ok": true}  (it is on disk) | {"error": "..."}
    > {"end": true}
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fieldstation.kit.transfer import connect_socket
from fieldstation.kit.transfer_model import (
    DEFAULT_TIMEOUT_S,
    FileChangedError,
    HeaderError,
    PeerClosedError,
    TargetError,
    TransferConnectError,
    TransferRefusedError,
    TransferTimeoutError,
    UnsafeNameError,
    safe_relative,
)
from fieldstation.kit.transfer_socket import CHUNK, Progress, read_line, time_limit

HELLO = b"\0fieldstation-transfer/1"


def send_json(sock: socket.socket, timeout_s: float | None, **fields: Any) -> None:
    """Send one JSON line."""
    with time_limit(sock, timeout_s):
        try:
            sock.sendall(json.dumps(fields).encode() + b"\n")
        except (BrokenPipeError, ConnectionResetError) as error:
            raise PeerClosedError(when="before we could answer") from error


def read_json(sock: socket.socket, timeout_s: float | None) -> dict[str, Any]:
    """Return the JSON object of the next line; {"end": True} when the peer closed instead."""
    line = read_line(sock, timeout_s)
    if line is None:
        return {"end": True}
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise HeaderError(found=ascii(line[:40]), expected="a JSON object") from error
    if not isinstance(fields, dict):
        raise HeaderError(found=ascii(line[:40]), expected="a JSON object")
    return fields


def new_nonce() -> str:
    """Return what a peer must sign with the token, different each time."""
    return secrets.token_hex(16)


def proof(token: str, nonce: str) -> str:
    """Return the proof that one knows the token; the token itself never travels."""
    return hmac.new(token.encode(), nonce.encode(), hashlib.sha256).hexdigest()


def hash_of(path: Path, size: int) -> hashlib._Hash:
    """Return the running SHA-256 of the first `size` bytes of the file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while size > 0 and (data := file.read(min(CHUNK, size))):
            digest.update(data)
            size -= len(data)
    return digest


@dataclass(slots=True)
class Report:
    """What a session did: names of the files sent, already there, and refused (with the reason)."""

    sent: list[str] = field(default_factory=list)
    had: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


class TransferClient:
    """Send files to a listener of ours. `with TransferClient(host, port) as peer: peer.send(path)`.

    `send` returns when the other side has the file complete, checked and on disk. After a cut line a new client's
    `send` of the same file goes on where the line broke.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
    ) -> None:
        self._address = (host, port)
        self._token = token
        self._tls = tls
        self._timeout_s = timeout_s
        self._sock: socket.socket | None = None

    def __enter__(self) -> Self:
        host, port = self._address
        sock = connect_socket(host=host, port=port)
        try:
            sock.settimeout(self._timeout_s)
            self._sock = sock = self._wrapped(sock)
            self._greet(sock)
        except BaseException:
            sock.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sock is not None:
            with suppress(OSError):
                if error is None:
                    send_json(self._sock, self._timeout_s, end=True)
            self._sock.close()

    def _wrapped(self, sock: socket.socket) -> socket.socket:
        if self._tls is None:
            return sock
        host, port = self._address
        try:
            return self._tls.wrap_socket(sock, server_hostname=host)
        except (ssl.SSLError, OSError) as error:
            problem = getattr(error, "verify_message", "") or getattr(error, "reason", None) or error
            raise TransferConnectError(host=host, port=port, problem=f"TLS: {problem}") from error

    def _greet(self, sock: socket.socket) -> None:
        host, port = self._address
        try:
            sock.sendall(HELLO + b"\n")
            answer = read_json(sock, self._timeout_s)
            if answer.get("end"):
                raise PeerClosedError(when="without an answer")
        except (HeaderError, PeerClosedError, TransferTimeoutError, OSError) as error:
            problem = "it does not answer as ours do; for a peer of the older kind use the legacy mode"
            raise TransferConnectError(host=host, port=port, problem=problem) from error
        if nonce := answer.get("nonce"):
            if self._token is None:
                raise TransferConnectError(host=host, port=port, problem="it wants a token")
            send_json(sock, self._timeout_s, proof=proof(self._token, str(nonce)))
            self._expect_ok(read_json(sock, self._timeout_s), "the token")
        elif "nonce" not in answer:
            self._expect_ok(answer, "the connection")

    @staticmethod
    def _expect_ok(answer: dict[str, Any], what: str) -> None:
        if answer.get("end"):
            raise PeerClosedError(when=f"instead of answering to {what}")
        if not answer.get("ok"):
            raise TransferRefusedError(what=what, problem=answer.get("error", "no reason given"))

    def send(
        self, path: Path, name: str | None = None, *, progress: Progress | None = None, only_changed: bool = False
    ) -> bool:
        """Send one file as `name` (its base name; `a/b.csv` makes folders); False when the peer has it already."""
        assert self._sock is not None
        sock, name = self._sock, name or path.name
        safe_relative(name)
        try:
            status = path.stat()
            file = path.open("rb")
        except OSError as error:
            raise TargetError(f"The file {path} cannot be read: {error.strerror}.") from error
        with file:
            send_json(
                sock, self._timeout_s, file=name, size=status.st_size, mtime=status.st_mtime_ns, sync=only_changed
            )
            answer = read_json(sock, self._timeout_s)
            if answer.get("have"):
                return False
            if "offset" not in answer:
                self._expect_ok(answer, name)
            offset, digest = self._start(path, status.st_size, answer)
            send_json(sock, self._timeout_s, **{"from": offset})
            file.seek(offset)
            left = status.st_size - offset
            while left:
                data = file.read(min(CHUNK, left))
                if not data:
                    raise FileChangedError(path=path)
                digest.update(data)
                self._send_bytes(sock, data)
                left -= len(data)
                if progress is not None:
                    progress(status.st_size - left, status.st_size)
        send_json(sock, self._timeout_s, sha256=digest.hexdigest())
        self._expect_ok(read_json(sock, self._timeout_s), name)
        return True

    def _send_bytes(self, sock: socket.socket, data: bytes) -> None:
        try:
            sock.sendall(data)
        except TimeoutError as error:
            raise TransferTimeoutError(timeout_s=f"{self._timeout_s:g}", when="while we sent") from error
        except (BrokenPipeError, ConnectionResetError) as error:
            raise PeerClosedError(when="while we sent") from error

    @staticmethod
    def _start(path: Path, size: int, answer: dict[str, Any]) -> tuple[int, hashlib._Hash]:
        offset = answer.get("offset")
        if not isinstance(offset, int) or not 0 <= offset <= size:
            raise HeaderError(found=ascii(str(offset))[:40], expected="an offset within the file")
        digest = hash_of(path, offset)
        if digest.hexdigest() == answer.get("prefix"):
            return offset, digest
        return 0, hashlib.sha256()  # what the peer has is not the beginning of this file

    def sync(self, folder: Path, *, progress: Progress | None = None) -> Report:
        """Send every file below `folder` that the peer lacks or has with another size or time. Deletes nothing."""
        report = Report()
        for path in files_below(folder):
            name = path.relative_to(folder).as_posix()
            try:
                done = self.send(path, name, progress=progress, only_changed=True)
            except (TransferRefusedError, UnsafeNameError) as error:
                report.refused[name] = str(error)
            else:
                (report.sent if done else report.had).append(name)
        return report


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the regular files below `folder` in order; links are not followed, hidden names are left out."""
    if not folder.is_dir():
        raise TargetError(path=folder, problem="it is not a folder")
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not path.is_symlink() and not hidden:
            yield path
