"""The database of a review queue: its URL, its connections and its transactions."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Lock
from time import sleep
from typing import Any, TypeVar
from weakref import finalize

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from aspire_guard.errors import InputError, ReviewQueueError
from aspire_guard.review.audit import import_tickets
from aspire_guard.review.forking import reset_in_children
from aspire_guard.review.schema import is_prepared, prepare_tables
from aspire_guard.review.transaction import Transaction

Result = TypeVar("Result")

_DRIVERS = {"sqlite": "pysqlite", "postgresql": "psycopg"}
# The channel on which PostgreSQL tells which tickets have changed.
CHANNEL = "aspire_guard_review"
_MAX_PAYLOAD = 7_900
# In seconds.
_CONNECT_TIMEOUT = 10
_FIRST_PAUSE, _N_PAUSES = 0.01, 8
# A statement may wait for several locks, one after the other.
_STATEMENT_FACTOR = 3

# A child of a fork must neither use nor close the connections of its parent. They are kept here for ever.
_connections_of_parents: list[Engine] = []


class Database:
    """The database of a review queue.

    It is opened, and its tables are created, when it is first used. Connections are shared between threads, and a
    forked child opens its own.

    Args:
        url: the URL, as SQLAlchemy writes it.
        lock_timeout: the seconds to wait for another writer, or for a locked table.

    Attributes:
        url: the URL, with the driver that this library uses.

    Raises:
        InputError: the URL is neither one of SQLite nor one of PostgreSQL, or its driver is unknown or not installed.
    """

    def __init__(self, url: str, lock_timeout: float) -> None:
        self.url = _parse_url(url)
        self._lock_timeout = lock_timeout
        self._open()
        reset_in_children(self)

    def __repr__(self) -> str:
        return self.url.render_as_string(hide_password=True)

    @property
    def is_sqlite(self) -> bool:
        """True for SQLite, False for PostgreSQL."""
        return self.url.get_backend_name() == "sqlite"

    def write(self, work: Callable[[Transaction], Result]) -> tuple[Result, Transaction]:
        """Run a transaction that may write, and return its result and what it has changed.

        Raises:
            ReviewQueueError: the database fails.
        """
        with self._translate_errors():
            self._prepare()
            with self._engine.begin() as connection:
                transaction = self._begin(connection)
                result = work(transaction)
                if transaction.changed and transaction.is_postgresql:
                    _notify(connection, transaction.changed)
            return result, transaction

    def read(self, work: Callable[[Transaction], Result]) -> Result:
        """Run a transaction that only reads, all from one snapshot. It neither waits for writers nor stops them.

        Raises:
            ReviewQueueError: the database fails.
        """
        with self._translate_errors():
            self._prepare()
            with self._reader.begin() as connection:
                return work(self._begin(connection))

    @contextmanager
    def connect(self) -> Iterator[Any]:
        """Open a connection of the driver outside the pool, to watch the database with.

        Raises:
            ReviewQueueError: the database fails.
        """
        with self._translate_errors():
            self._prepare()
            pooled = self._engine.raw_connection()
            connection: Any = pooled.driver_connection
            pooled.detach()
        try:
            yield connection
        finally:
            connection.close()

    def truncate_log(self) -> None:
        """Empty SQLite's write-ahead log, in which erased data would live on for a while."""
        if not self.is_sqlite:
            return
        with self.connect() as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def reset_after_fork(self) -> None:
        """Leave the connections of the parent alone, and open new ones."""
        _connections_of_parents.append(self._engine)
        self._finalizer.detach()
        self._open()

    def close(self) -> None:
        """Close the connections. The next transaction opens new ones."""
        self._engine.dispose()

    def _open(self) -> None:
        self._engine = _create_engine(self.url, self._lock_timeout)
        # The connections are closed with the queue, or when Python ends.
        self._finalizer = finalize(self, self._engine.dispose)
        options: dict[str, Any] = {"is_reader": True}
        if not self.is_sqlite:
            options["isolation_level"] = "REPEATABLE READ"
        self._reader = self._engine.execution_options(**options)
        self._lock = Lock()
        self._prepared_file: int | None = None

    def _begin(self, connection: Connection) -> Transaction:
        now = datetime.now(UTC)
        if not self.is_sqlite:
            # The clocks of several machines differ. The server has one.
            now = connection.execute(text("SELECT clock_timestamp()")).scalar_one().astimezone(UTC)
        return Transaction(connection, now)

    def _prepare(self) -> None:
        with self._lock:
            file = self._find_file()
            if file is not None and file == self._prepared_file:
                return
            # SQLite's file was removed or replaced: the open connections still have the old one.
            self._engine.dispose()
            with self._reader.begin() as connection:
                prepared = is_prepared(connection)
            if not prepared:
                with self._engine.begin() as connection:
                    if prepare_tables(connection):
                        import_tickets(self._begin(connection))
            self._prepared_file = self._find_file()

    def _find_file(self) -> int | None:
        """Return a number that changes if the file is replaced, or None if there is no file. It is 0 in PostgreSQL."""
        if not self.is_sqlite:
            return 0
        try:
            return os.stat(self.url.database or "").st_ino
        except OSError:
            return None

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:
            found = type(error.__cause__ or error).__name__
            # The database's own words are left out, because they may hold the answer.
            raise ReviewQueueError(
                f"expected the database of ReviewQueue({str(self)!r}) to answer, found {found}; "
                "check that it runs, can be written and is not locked"
            ) from error


def _parse_url(url: str) -> URL:
    """Check the URL of a database, and add the driver that this library uses for PostgreSQL."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise InputError(
            f"expected the URL of a database, found {url!r}; write for example sqlite:///reviews.db"
        ) from error
    backend, _, driver = parsed.drivername.partition("+")
    if backend not in _DRIVERS:
        raise InputError(
            f"expected a URL of sqlite or postgresql, found one of {backend}; use one of these two"
        )
    if driver not in ("", _DRIVERS[backend]):
        raise InputError(
            f"expected the driver {_DRIVERS[backend]} for {backend}, found {driver}; leave the driver out of the URL"
        )
    if backend == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise InputError(
            "expected the path of a SQLite file, found none; write for example sqlite:///reviews.db"
        )
    # SQLAlchemy's own default for PostgreSQL is another driver.
    return parsed if backend == "sqlite" else parsed.set(drivername="postgresql+psycopg")


def _create_engine(url: URL, lock_timeout: float) -> Engine:
    is_sqlite = url.get_backend_name() == "sqlite"
    if is_sqlite:
        settings: dict[str, Any] = {"timeout": lock_timeout}
    else:
        # libpq takes the last one in milliseconds.
        settings = {
            "connect_timeout": _CONNECT_TIMEOUT,
            "tcp_user_timeout": 2_000 * _CONNECT_TIMEOUT,
        }
        settings = {name: value for name, value in settings.items() if name not in url.query}
    try:
        engine = create_engine(
            url,
            hide_parameters=True,
            connect_args=settings,
            pool_pre_ping=not is_sqlite,
            pool_timeout=lock_timeout,
            max_overflow=20,
        )
    except ModuleNotFoundError as error:
        raise InputError(
            f"expected the package {error.name} for a queue in PostgreSQL, found none; "
            "install aspire-guard[postgresql]"
        ) from error
    if is_sqlite:
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        event.listen(engine, "connect", _PostgresqlSettings(lock_timeout))
    return engine


class _PostgresqlSettings:
    """The limits of a connection to PostgreSQL."""

    def __init__(self, lock_timeout: float) -> None:
        milliseconds = round(1_000 * lock_timeout)
        self._statements = (
            f"SET lock_timeout = {milliseconds}",
            f"SET statement_timeout = {_STATEMENT_FACTOR * milliseconds}",
            f"SET idle_in_transaction_session_timeout = {_STATEMENT_FACTOR * milliseconds}",
        )

    def __call__(self, connection: Any, record: Any) -> None:
        with connection.cursor() as cursor:
            for statement in self._statements:
                cursor.execute(statement)
        connection.commit()


def _configure_sqlite(connection: Any, record: Any) -> None:
    # The driver must not begin transactions: `_begin_sqlite` does.
    connection.isolation_level = None
    for attempt in range(_N_PAUSES):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError:
            # While another process opens the file for the first time, SQLite refuses at once instead of waiting.
            if attempt == _N_PAUSES - 1:
                raise
            sleep(_FIRST_PAUSE * 2**attempt)
    connection.execute("PRAGMA synchronous=FULL")
    # What is erased is overwritten.
    connection.execute("PRAGMA secure_delete=ON")


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that may write is a writer from its beginning. Two that first read and then write would lock each
    # other out.
    is_reader = connection.get_execution_options().get("is_reader", False)
    connection.exec_driver_sql("BEGIN" if is_reader else "BEGIN IMMEDIATE")


def _notify(connection: Connection, ticket_ids: list[str]) -> None:
    payload = ",".join(dict.fromkeys(ticket_ids))
    # PostgreSQL limits the payload to 8,000 bytes. An empty one stands for all tickets.
    payload = payload if len(payload) < _MAX_PAYLOAD else ""
    connection.execute(
        text("SELECT pg_notify(:channel, :payload)"), {"channel": CHANNEL, "payload": payload}
    )
