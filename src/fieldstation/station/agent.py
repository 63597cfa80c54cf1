"""`MessagingAgent`: hand a message over and know that it is on the disk when the call returns."""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fieldstation.station import frames
from fieldstation.station.archive import day_of, merged, read_day_file
from fieldstation.station.errors import DiskFullError, OutboxUnavailableError
from fieldstation.station.heartbeat import beat
from fieldstation.station.messages import MessageArchiveItem, MessageBody, MessageQueueItem
from fieldstation.station.place import current_place
from fieldstation.station.store import Reader

SUPERVISED = "FIELDSTATION_STATION_SUPERVISED"  # set for procedures: the writer is the supervisor's business
DEADLINE_S = 20.0


_revision: int | None = None


def made_under(revision: int) -> None:
    """Mark all messages of this process with the revision of the config under which they are made."""
    global _revision
    _revision = revision


class WriterLine:
    """A connection to the writer that mends itself. Threads may share it; a forked child makes its own."""

    def __init__(self, folder: Path, deadline_s: float = DEADLINE_S) -> None:
        self._folder = folder
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._line: socket.socket | None = None
        self._unpacker = frames.Unpacker()
        self._pid = os.getpid()

    def ask(self, request: Sequence[Any], bodies: Sequence[bytes] = ()) -> Any:
        """Send a request and return its answer; tried again until the deadline when the writer is gone.

        A request may therefore be done twice, so each must be one that may be. Raises OutboxUnavailableError,
        DiskFullError, or StoreError with the writer's reason.
        """
        return self.ask_frame(frames.pack(request, bodies))

    def ask_frame(self, frame: bytes) -> Any:
        """Send a request that is packed already; otherwise as `ask`."""
        deadline = time.monotonic() + self._deadline_s
        with self._lock:
            if self._pid != os.getpid():
                self._line, self._pid = None, os.getpid()
            while True:
                try:
                    return self._result(self._exchange(frame, deadline))
                except (OSError, ValueError) as error:
                    self._hang_up()
                    if time.monotonic() >= deadline:
                        path = self._folder / "active-message-queue.sqlite3"
                        raise OutboxUnavailableError(deadline_s=self._deadline_s, path=path, problem=error) from error
                    self._start_writer()
                    time.sleep(0.02)

    def close(self) -> None:
        """Hang up."""
        with self._lock:
            self._hang_up()

    def _exchange(self, frame: bytes, deadline: float) -> Any:
        if self._line is None:
            self._line = frames.connect(self._folder, max(0.01, deadline - time.monotonic()))
            frames.wait_at_most(self._line, self._deadline_s)
            self._unpacker = frames.Unpacker()
        self._line.sendall(frame)
        while True:
            data = self._line.recv(frames.READ_AT_ONCE)
            if data == frames.STORED:
                return ["ok", None]
            if not data:
                raise ConnectionResetError("the writer hung up")
            for answer in self._unpacker.feed(data):
                return answer

    def _result(self, answer: Any) -> Any:
        kind, *rest = answer
        if kind == "ok":
            return rest[0]
        code, problem = rest
        path = self._folder / "active-message-queue.sqlite3"
        if code == "full":
            raise DiskFullError(path=path)
        raise OutboxUnavailableError(f"The message store {path} refused the request: {problem}.")

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None

    def _start_writer(self) -> None:
        if os.environ.get(SUPERVISED):
            return
        import subprocess  # not needed in a supervised procedure

        self._folder.mkdir(parents=True, exist_ok=True)
        # Its own session, so that a Ctrl-C meant for us does not end it in mid-commit. It ends when nobody needs it.
        child = subprocess.Popen(
            [sys.executable, "-m", "fieldstation.station.writer", str(self._folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        until = time.monotonic() + 5.0
        while time.monotonic() < until and child.poll() is None:
            with contextlib.suppress(OSError):
                frames.connect(self._folder, 0.5).close()
                break
            time.sleep(0.01)
        # Left to the system on purpose: other agents use the same writer after we are gone.
        child.returncode = 0


class MessagingAgent:
    """Stores messages and gives out those that the documented uplink, `backend`, is still owed."""

    def __init__(self, data_dir: Path | None = None, *, deadline_s: float = DEADLINE_S) -> None:
        self._folder = data_dir or current_place().data_dir
        self._line = WriterLine(self._folder, deadline_s)
        self._reader: Reader | None = None
        self._count = 0
        self._stem = os.urandom(8).hex()

    def add_message(self, message_body: MessageBody) -> None:
        """Store a message; when this returns it is on the disk and owed to every uplink.

        Waits while there is no writer, up to the deadline (20 s), then raises OutboxUnavailableError: not stored.
        DiskFullError when there is no room and nothing that was delivered is left to drop.
        """
        self._add([message_body])

    def add_messages(self, message_bodies: Iterable[MessageBody]) -> None:
        """Store many messages in one commit: all or none of them."""
        bodies = list(message_bodies)
        if bodies:
            self._add(bodies)

    def _add(self, bodies: list[MessageBody]) -> None:
        # Written without the encoder of `frames.pack`: in a procedure that has just slept each call counts.
        ranks = [int(body.variant == "log") for body in bodies]
        rank, revision = ranks if any(ranks) else 0, "null" if _revision is None else _revision
        head = f'["add","{self._new_id(len(bodies))}",{time.time()!r},{rank},{revision}]'
        # What `model_dump_json` calls, without the way back from bytes to text.
        lines = [body.__pydantic_serializer__.to_json(body) for body in bodies]
        self._line.ask_frame(frames.pack_text(head, lines))
        beat()

    def add_once(self, message_id: str, body: str, rank: int = 0) -> None:
        """Store a message, given as JSON, under an id of the caller's; what is stored under that id stays as it is."""
        self._line.ask(("add", [message_id], time.time(), rank, _revision), [body.encode()])

    def get_n_latest_messages(self, n: int, excluded_message_ids: set[int] | list[int]) -> list[MessageQueueItem]:
        """Return up to `n` messages that are owed, the oldest first (as it always was, whatever the name says).

        Readings and config answers come before logs. `excluded_message_ids` are left out.
        """
        excluded = set(excluded_message_ids)
        rows = self._open_reader().next_rows(n + len(excluded))
        return [
            MessageQueueItem.model_validate_json(
                f'{{"timestamp":{row.timestamp!r},"identifier":{row.seq},"message_body":{row.body}}}'
            )
            for row in rows
            if row.seq not in excluded
        ][:n]

    def remove_messages(self, message_ids: set[int] | list[int]) -> None:
        """Forget that these are owed. They stay in the archive."""
        self._line.ask(("done_by_seq", "backend", list(message_ids)))

    @staticmethod
    def get_message_archive_file() -> str:
        """Return the path of the archive file of the current UTC day."""
        return str(current_place().data_dir / "messages" / f"{day_of(time.time())}.csv")

    @staticmethod
    def load_message_archive(date: datetime.date) -> list[MessageArchiveItem]:
        """Return what was stored on a UTC day, the oldest first; what cannot be read is left out."""
        items = []
        for timestamp, body in archive_rows(current_place().data_dir, date):
            with contextlib.suppress(ValueError):
                items.append(
                    MessageArchiveItem.model_validate_json(f'{{"timestamp":{timestamp!r},"message_body":{body}}}')
                )
        return items

    def teardown(self) -> None:
        """Let go of the store. The agent may be used again; it then connects anew."""
        self._line.close()
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _new_id(self, count: int) -> str:
        # Made before the first try, so that a try again is no second message. The process id tells a forked child's.
        # Of one width: ids that grow as text keep the store's index of them dense. It is the first of `count`: the
        # writer counts on for the others.
        first, self._count = self._count, self._count + count
        return f"{self._stem}{os.getpid():x}-{first:08x}"

    def _open_reader(self) -> Reader:
        if self._reader is None:
            self._line.ask(("ping",))
            self._reader = Reader(self._folder / "active-message-queue.sqlite3")
        return self._reader


def archive_rows(data_dir: Path, day: datetime.date) -> list[tuple[float, str]]:
    """Return (timestamp, body) of a UTC day from the store and from the day's file."""
    file = data_dir / "active-message-queue.sqlite3"
    stored: list[tuple[float, str]] = []
    if file.exists():
        # Whoever opens the store for writing adopts one of today's stations, so that there is something to read.
        with contextlib.closing(WriterLine(data_dir)) as line:
            line.ask(("ping",))
        reader = Reader(file)
        with contextlib.closing(reader):
            stored = list(reader.on_day(day))
    return merged(stored, read_day_file(data_dir / "messages" / f"{day}.csv"))
