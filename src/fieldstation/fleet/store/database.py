"""Open the database, bring its schema up to date, run transactions off the event loop."""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy
from sqlalchemy import Connection, Dialect, Engine, create_engine, event
from sqlalchemy.pool import StaticPool

from fieldstation.core.errors import StoreError
from fieldstation.core.log import mask
from fieldstation.core.security import Principal, Role
from fieldstation.fleet.errors import NotLeaderError
from fieldstation.fleet.store import chain, leader, ledger, schema, tokens
from fieldstation.fleet.store.address import Address, parse

T = TypeVar("T")

POSTGRES_CONNECTIONS = 4
CONNECT_S = 5
ANSWER_S = 15  # a database that hangs must become an error, since decisions wait for it

_CLOSED = "The store is closed; nothing more can be written to it."


class DatabaseInUseError(StoreError):
    """Another control server uses the database {path}. Stop it first; two controls need PostgreSQL."""


class Store:
    """One database. A transaction is a function of a Connection: `await store.transact(work)` from the event loop,
    `store.transact_now(work)` from plain code. It is on disk when the call returns, and undone when it raises.

    Once `epoch` is set, `transact` first checks that this epoch leads: NotLeaderError, and nothing is written, when it
    does not; `deposed` hears of it. `read` is for what may be looked at without leading.

    SQLite has one writer thread and begins IMMEDIATE; PostgreSQL has a small pool and row locks (`FOR UPDATE`, which
    SQLite does not need and ignores).
    """

    def __init__(self, database: str) -> None:
        self.address: Address = parse(database)
        self.is_sqlite = self.address.file is not None
        self.epoch: int | None = None
        self.deposed: Callable[[], None] = lambda: None
        self._claim: int | None = None
        self._engine: Engine | None = None
        self._closed = False
        self._making = threading.Lock()
        self._one_at_a_time = threading.Lock()
        workers = 1 if self.is_sqlite else POSTGRES_CONNECTIONS
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="fleet-store")

    def open(self) -> None:
        """Connect and migrate; an unreachable, foreign or newer database is one sentence (StoreError)."""
        self.migrate()

    def migrate(self) -> tuple[str | None, str]:
        """Bring the schema to this version; returns the revisions before and after. Rows are kept."""
        return self._guarded(lambda: schema.upgrade(self._connected(), self.address.shown))

    def close(self) -> None:
        """Finish what is running and disconnect."""
        self._executor.shutdown(wait=True)
        with self._making:
            self._closed = True
            if self._engine is not None:
                self._engine.dispose()
                self._engine = None
        if self._claim is not None:
            os.close(self._claim)
            self._claim = None

    def claim(self) -> None:
        """Keep other controls off an SQLite file for as long as this process lives, or raise DatabaseInUseError.

        PostgreSQL may be shared: there the leader's epoch decides.
        """
        if self.address.file is None or self._claim is not None:
            return
        self._claim = self._guarded(lambda: _lock(self.address.file, self.address.shown))

    async def transact(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction in the store's thread, if we lead. Once begun it ends one way or the other,
        although the caller was cancelled."""
        epoch = self.epoch
        if epoch is None:
            return await self.read(work)

        def guarded(connection: Connection) -> T:
            leader.check(connection, epoch)
            return work(connection)

        try:
            return await self.read(guarded)
        except NotLeaderError:
            self.deposed()
            raise

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work`, which writes nothing, as `transact` does but whoever leads."""
        loop = asyncio.get_running_loop()
        try:
            future = loop.run_in_executor(self._executor, self.transact_now, work)
        except RuntimeError as error:
            raise StoreError(_CLOSED) from error
        return await asyncio.shield(future)

    def transact_now(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction in this thread."""

        def run() -> T:
            with self._connected().begin() as connection:
                return work(connection)

        if not self.is_sqlite:
            return self._guarded(run)
        with self._one_at_a_time:
            return self._guarded(run)

    # What `fieldstation tokens --database` needs.

    def add_token(self, user: str, role: Role) -> str:
        """Create a token for `user`, store its hash, and return the token: the only time it can be seen."""

        def work(connection: Connection) -> str:
            ledger.write_audit(connection, [ledger.Entry("token created", user, "local", detail=role.name.lower())])
            return tokens.add(connection, user, role)

        return self.transact_now(work)

    def list_tokens(self) -> list[tuple[str, str, str]]:
        """Return (user, role, ISO time of creation) of every token, without the tokens: those are not stored."""
        return self.transact_now(tokens.listing)

    def revoke_tokens(self, user: str) -> int:
        """Remove all tokens of `user`; returns how many there were. A running control notices within seconds."""

        def work(connection: Connection) -> int:
            if removed := tokens.revoke(connection, user):
                ledger.write_audit(connection, [ledger.Entry("tokens revoked", user, "local", detail=str(removed))])
            return removed

        return self.transact_now(work)

    def verify_audit(self, expect: str | None = None) -> chain.Verdict:
        """Walk the audit log's chain; see `chain.Walk`. Others may write meanwhile."""
        walk = chain.Walk(expect)
        while (verdict := self.transact_now(walk.step)) is None:
            pass
        return verdict

    def lookup(self, token: str) -> Principal | None:
        """Return whose token this is, or None."""
        return self.transact_now(lambda c: tokens.lookup(c, token))

    def _guarded(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except (sqlalchemy.exc.StatementError, OverflowError, UnicodeError) as error:
            told = str(getattr(error, "orig", None) or error).strip() or str(error)
            raise StoreError(path=self.address.shown, problem=mask(told.splitlines()[0])) from error
        except OSError as error:
            raise StoreError(path=self.address.shown, problem=error.strerror or error) from error

    def _connected(self) -> Engine:
        with self._making:  # two threads that come first would each make one, and one would never be closed
            if self._closed:  # a thread whose task was cancelled goes on, and would connect anew
                raise StoreError(_CLOSED)
            if self._engine is None:
                self._engine = self._create()
            return self._engine

    def _create(self) -> Engine:
        if self.address.file is None:
            # Pre-ping: a database that was restarted costs one retry, not one error per connection.
            engine = create_engine(self.address.url, pool_size=POSTGRES_CONNECTIONS, pool_pre_ping=True)
            event.listen(engine, "do_connect", self._connect_libpq)
            event.listen(engine, "begin", _limit_statements)
            return engine
        self.address.file.parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(self.address.url, poolclass=StaticPool, connect_args={"check_same_thread": False})
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_immediate)
        return engine

    def _connect_libpq(self, dialect: Dialect, record: object, arguments: object, options: dict[str, Any]) -> Any:
        if "connect_timeout" not in self.address.conninfo:
            options["connect_timeout"] = CONNECT_S
        if "tcp_user_timeout" not in self.address.conninfo:
            options["tcp_user_timeout"] = ANSWER_S * 1000
        return dialect.connect(self.address.conninfo, **options)


def _lock(file: Path | None, shown: str) -> int:
    assert file is not None
    file.parent.mkdir(parents=True, exist_ok=True)
    # Beside the database: closing any descriptor of the file itself would drop SQLite's own locks.
    descriptor = os.open(file.with_name(file.name + ".control"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise DatabaseInUseError(path=shown) from None
    return descriptor


def _set_up_sqlite(connection: Any, record: object) -> None:
    connection.isolation_level = None  # we begin transactions ourselves
    connection.execute("PRAGMA busy_timeout=5000")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _limit_statements(connection: Connection) -> None:
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{ANSWER_S}s'")


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
