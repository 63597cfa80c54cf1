"""The one process that writes to the store: `python -m fieldstation.station.writer DATA_DIR`.

It serves agents over a Unix socket. All requests that are there together share one commit, so four producers cost
little more than one. One thread, no pydantic: it has to be small and it has to be quick.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import selectors
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fieldstation.core.errors import StoreError
from fieldstation.station import frames, rescue
from fieldstation.station.archive import DayFiles
from fieldstation.station.memory import give_back
from fieldstation.station.store import Store

log = logging.getLogger(__name__)

IDLE_S = 10.0  # an agent's own writer ends when nobody has been connected for so long
_OK = ["ok", None]
_NONSENSE = (ValueError, TypeError, LookupError, ArithmeticError, StoreError)  # what a bad request may raise
MAX_WAIT_S = 0.0005  # the longest that a commit waits for producers that are about to come back


class Client:
    """One connected agent."""

    def __init__(self, line: socket.socket) -> None:
        self.line = line
        self.unpacker = frames.Unpacker()


class Writer:
    """Serves until told to stop, or until nobody needs it."""

    def __init__(self, folder: Path, *, supervised: bool) -> None:
        self._folder = folder
        self._file = folder / "active-message-queue.sqlite3"
        self._supervised = supervised
        self._selector = selectors.DefaultSelector()
        self._clients: set[Client] = set()
        self._watching: set[Client] = set()  # want to be told of new messages
        self._stopping = False
        self._last_used = time.monotonic()
        self._commit_s = 0.001
        self._crowd = 1  # producers in the last round: so many are likely to come back at once
        self._days = DayFiles(folder / "messages")
        self._staged: list[tuple[float, str]] = []  # in the transaction that is open
        self._to_file: list[tuple[float, str]] = []  # stored, and not yet in the file of the day
        self._open()

    def _open(self) -> None:
        notes: list[str] = []
        self._connection = rescue.open_or_rescue(self._file, notes)
        self._store = Store(self._connection)
        self._ballast = rescue.Ballast(self._folder / "reserve")
        self._ballast.fill()
        if notes:
            rows = [rescue.note_row(note) for note in notes]
            self._transaction(lambda: self._store.add(rows))

    def serve(self) -> None:
        """Accept agents and answer them."""
        listener = self._listen()
        self._selector.register(listener, selectors.EVENT_READ, None)
        if self._supervised:
            # The supervisor holds the other end and never writes: an end of file is its death.
            self._selector.register(sys.stdin, selectors.EVENT_READ, "supervisor")
        for number in (signal.SIGTERM, signal.SIGINT):
            # systemd signals a whole group at once; who stores must outlive those who still have something to store.
            signal.signal(number, signal.SIG_IGN if self._supervised else self._stop)
        while not self._stopping:
            self._round(listener)
        self._write_files()
        self._connection.close()

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # We hold the writer's lock, so a socket that lies there is a dead writer's.
        (self._folder / frames.SOCKET_NAME).unlink(missing_ok=True)
        with frames.short_path(self._folder) as path:
            listener.bind(path)
        (self._folder / frames.SOCKET_NAME).chmod(0o600)
        listener.listen(128)
        listener.setblocking(False)
        return listener

    def _round(self, listener: socket.socket) -> None:
        requests: list[tuple[Client, Any]] = []
        # The files of the days follow when there is a moment's rest: nobody waits for them.
        self._collect(listener, 0.02 if self._to_file else 1.0, requests)
        if requests and self._crowd > 1:
            # Producers that were served together come back together: a wait of a fraction of a commit saves a commit.
            deadline = time.monotonic() + min(MAX_WAIT_S, self._commit_s / 2)
            while len(requests) < self._crowd and (left := deadline - time.monotonic()) > 0:
                self._collect(listener, left, requests)
        if not requests or len(self._to_file) > 5000:
            self._write_files()
        if requests:
            self._last_used = time.monotonic()
            self._crowd = len({id(client) for client, _ in requests})
            self._answer(requests)
        elif not self._supervised and not self._clients and time.monotonic() - self._last_used > IDLE_S:
            self._stopping = True

    def _write_files(self) -> None:
        if self._to_file:
            # On a full disk the store needs what room there is; the files are made whole from it later.
            if self._ballast:
                self._days.append(self._to_file)
            self._to_file = []

    def _collect(self, listener: socket.socket, timeout_s: float, requests: list[tuple[Client, Any]]) -> None:
        for key, _ in self._selector.select(timeout_s):
            if key.data is None:
                self._accept(listener)
            elif key.data == "supervisor":
                self._stopping = True
            else:
                self._read(key.data, requests)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            line, _ = listener.accept()
            frames.wait_at_most(line, 5.0)
            client = Client(line)
            self._clients.add(client)
            self._selector.register(line, selectors.EVENT_READ, client)

    def _read(self, client: Client, requests: list[tuple[Client, Any]]) -> None:
        try:
            data = client.line.recv(frames.READ_AT_ONCE)
            if not data:
                raise ConnectionResetError
            for request in client.unpacker.feed(data):
                requests.append((client, request))
        except (OSError, ValueError):
            self._forget(client)

    def _forget(self, client: Client) -> None:
        if client in self._clients:
            self._clients.discard(client)
            self._watching.discard(client)
            self._selector.unregister(client.line)
            client.line.close()

    def _answer(self, requests: list[tuple[Client, Any]]) -> None:
        started = time.monotonic()
        answers: list[Any] = self._together(requests)
        self._commit_s = 0.8 * self._commit_s + 0.2 * (time.monotonic() - started)
        for (client, _), answer in zip(requests, answers, strict=True):
            self._send(client, answer)
        if self._watching and any(request[0] == "add" for _, request in requests):
            for client in list(self._watching):
                self._send(client, ["new"])

    def _send(self, client: Client, answer: Any) -> None:
        try:
            client.line.sendall(frames.STORED if answer is _OK else frames.pack(answer))
        except OSError:
            self._forget(client)

    def _together(self, requests: list[tuple[Client, Any]]) -> list[Any]:
        try:
            answers: list[Any] = self._transaction(lambda: self._apply(requests))
            return answers
        except (sqlite3.Error, *_NONSENSE):
            # One of them is at fault, or the disk is: each alone, so that the good ones are stored.
            return [self._alone(client, request) for client, request in requests]

    def _apply(self, requests: list[tuple[Client, Any]]) -> list[Any]:
        # Thought to be new; when one is not (a producer's second try), each request is done alone.
        rows = [row for _, request in requests for row in _rows(request)]
        if rows:
            self._store.append(rows)
            self._staged += [(row[1], row[3]) for row in rows]
        return [_OK if request[0] == "add" else ["ok", self._do(client, request)] for client, request in requests]

    def _alone(self, client: Client, request: Any) -> Any:
        try:
            try:
                return self._transaction(lambda: ["ok", self._do(client, request)])
            except sqlite3.Error as error:
                if self._mended(error):
                    return self._transaction(lambda: ["ok", self._do(client, request)])
                if request[0] == "add" or not rescue.is_full(error, self._folder):
                    raise
                # An acknowledgement is what makes room: it may use the last of it.
                with self._ballast.given_up():
                    return self._transaction(lambda: ["ok", self._do(client, request)])
        except sqlite3.Error as error:
            code = "full" if rescue.is_full(error, self._folder) else "store"
            log.error("a request was refused: %s", error)
            return ["error", code, str(error)]
        except _NONSENSE as error:
            return ["error", "request", f"{type(error).__name__}: {error}"]

    def _mended(self, error: sqlite3.Error) -> bool:
        if rescue.is_full(error, self._folder):
            return self._ballast.make_room(self._connection, self._store)
        if rescue.is_corrupt(error):
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._open()
            return True
        return False

    def _transaction(self, work: Callable[[], Any]) -> Any:
        self._staged = []
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            result = work()
            self._connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            with contextlib.suppress(sqlite3.Error):
                self._store.reload()
            raise
        self._to_file += self._staged
        return result

    def _do(self, client: Client, request: Any) -> Any:
        verb, *given = request
        match verb:
            case "add":
                rows = _rows(request)
                if (new := self._store.add(rows)) == len(rows):
                    self._staged += [(row[1], row[3]) for row in rows]
                return new
            case "done":
                return self._store.done(*given)
            case "done_by_seq":
                return self._store.done_by_seq(*given)
            case "park":
                return self._store.park(*given)
            case "unpark":
                return self._store.unpark(*given)
            case "uplinks":
                return self._store.set_uplinks(*given)
            case "drop_uplink":
                return self._store.drop_uplink(*given)
            case "retain":
                return self._store.drop_delivered(given[1], before=given[0])
            case "watch":
                self._watching.add(client)
                return None
            case "check":
                result = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
                if result != "ok":
                    raise sqlite3.DatabaseError("database disk image is malformed")
                return None
            case "ping":
                return os.getpid()
            case _:
                raise ValueError(f"unknown request {verb!r}")


def _rows(request: Any) -> list[tuple[Any, ...]]:
    """Return what an `add` wants to store, each with the fields of `NewRow`; plain tuples are made in no time.

    Ids are a list, or the first of them, from which the others count on; ranks are a list, or one for all.
    """
    if request[0] != "add":
        return []
    _, ids, timestamp, ranks, revision, bodies = request
    count = len(bodies)
    if count == 1 and isinstance(ids, str) and isinstance(ranks, int):
        return [(ids, timestamp, ranks, bodies[0], revision)]
    if isinstance(ids, str):
        stem, _, first = ids.rpartition("-")
        start = int(first, 16)
        ids = [f"{stem}-{number:08x}" for number in range(start, start + count)]
    if isinstance(ranks, int):
        ranks = [ranks] * count
    return list(zip(ids, [timestamp] * count, ranks, bodies, [revision] * count, strict=True))


def main(folder: Path, *, supervised: bool) -> int:
    """Serve as the writer of `folder`, unless somebody else does."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "writer.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + (30.0 if supervised else 0.0)
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            # The supervisor's writer waits for an agent's own to end its last commit; an agent's yields at once.
            if time.monotonic() >= deadline:
                return 0
            time.sleep(0.02)
    give_back()
    try:
        Writer(folder, supervised=supervised).serve()
    except (StoreError, sqlite3.Error, OSError) as error:
        sys.stderr.write(f"the message store in {folder} cannot be used: {error}\n")
        return 1
    finally:
        os.close(lock)
    return 0


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
    sys.exit(main(Path(sys.argv[1]), supervised="--supervised" in sys.argv[2:]))
