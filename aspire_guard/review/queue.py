"""The review queue: a table of answers that wait for a person, in SQLite or PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from threading import Lock
from time import monotonic, sleep
from typing import Any, TypeVar
from uuid import uuid4

from sqlalchemy import URL, Connection, Engine, Row, create_engine, event, make_url, select
from sqlalchemy.exc import (
    ArgumentError,
    IntegrityError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.pool import NullPool

from aspire_guard.errors import InputError, ReviewConflictError, ReviewQueueError
from aspire_guard.review.item import Decision, ReviewItem, Status, Ticket
from aspire_guard.review.tables import prepare_tables, tickets
from aspire_guard.timeouts import run_in_thread

Result = TypeVar("Result")

# All in seconds: how long to wait for another writer, for the server, and between two looks at a ticket.
_SQLITE_LOCK_TIMEOUT = 30.0
_POSTGRESQL_CONNECT_TIMEOUT = 10
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_PAUSE_GROWTH = 1.5


class ReviewQueue:
    """Answers that wait for a person.

    Each method is one transaction, and any number of processes may share the queue. The database is opened, and its
    tables are created, when the queue is first used. A pickled queue holds the URL with its password.

    Args:
        url: the URL of the database, as SQLAlchemy writes it: `sqlite:///reviews.db`,
            `postgresql+psycopg://host/name`.

    Raises:
        InputError: the URL is neither one of SQLite nor one of PostgreSQL.
    """

    def __init__(self, url: str = "sqlite:///reviews.db") -> None:
        self._url = _parse_url(url)
        self._engine = _create_engine(self._url)
        self._lock = Lock()
        self._is_prepared = False

    def __reduce__(self) -> tuple[type[ReviewQueue], tuple[str]]:
        # A copy, perhaps in another process, opens the database for itself.
        return type(self), (self._url.render_as_string(hide_password=False),)

    def __repr__(self) -> str:
        return f"ReviewQueue({self._url.render_as_string(hide_password=True)!r})"

    def submit(self, item: ReviewItem) -> Ticket:
        """Submit an answer. If there is a ticket with the same key, return it in its present state.

        Raises:
            ReviewQueueError: the database fails, here and in all other methods.
        """
        try:
            return self._run_transaction(partial(_submit, item))
        except IntegrityError:
            # Another process inserted the item between our look and our insert. Now it is there.
            return self._run_transaction(partial(_submit, item))

    def get(self, ticket_id: str) -> Ticket:
        """Return a ticket by its id.

        Raises:
            ReviewConflictError: there is no ticket with this id.
        """
        return self._run_transaction(partial(_get, ticket_id))

    def list(self, status: Status | None = None, limit: int = 100) -> list[Ticket]:
        """Return tickets from the oldest to the newest.

        Args:
            status: "open" or "decided", or None for both.
            limit: the greatest number of tickets to return.
        """
        return self._run_transaction(partial(_list, status, limit))

    def decide(self, ticket_id: str, decision: Decision) -> Ticket:
        """Decide on a ticket. The same decision again changes nothing.

        Raises:
            ReviewConflictError: there is no ticket with this id, or it was decided otherwise.
        """
        return self._run_transaction(partial(_decide, ticket_id, decision))

    def wait(self, ticket_id: str, timeout: float) -> Decision | None:
        """Wait for the decision, and return None after `timeout` seconds without one.

        Raises:
            ReviewConflictError: there is no ticket with this id.
        """
        for pause in _generate_pauses(timeout):
            decision = self.get(ticket_id).decision
            if decision is not None or pause is None:
                return decision
            sleep(pause)
        return None

    async def await_(self, ticket_id: str, timeout: float) -> Decision | None:
        """Wait off the event loop; see `wait`."""
        for pause in _generate_pauses(timeout):
            ticket = await run_in_thread(partial(self.get, ticket_id), None, "review queue")
            if ticket.decision is not None or pause is None:
                return ticket.decision
            await asyncio.sleep(pause)
        return None

    def _run_transaction(self, work: Callable[[Connection], Result]) -> Result:
        with self._translate_errors():
            self._prepare()
            with self._engine.begin() as connection:
                return work(connection)

    def _prepare(self) -> None:
        with self._lock:
            if self._is_prepared:
                return
            try:
                with self._engine.begin() as connection:
                    prepare_tables(connection)
            except (IntegrityError, OperationalError, ProgrammingError):
                # Another process created the tables meanwhile. Any other reason happens again.
                with self._engine.begin() as connection:
                    prepare_tables(connection)
            self._is_prepared = True

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise
        except SQLAlchemyError as error:
            found = type(error.__cause__ or error).__name__
            # The database's own words are left out, because they may hold the answer.
            raise ReviewQueueError(
                f"expected the database of {self!r} to answer, found {found}; check that it runs and can be written"
            ) from error


def _parse_url(url: str) -> URL:
    """Check the URL of a database, and add the driver that this library uses for PostgreSQL."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise InputError(
            f"expected the URL of a database, found {url!r}; write for example sqlite:///reviews.db"
        ) from error
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise InputError(
            f"expected a URL of sqlite or postgresql, found one of {backend}; use one of these two"
        )
    if backend == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise InputError(
            "expected the path of a SQLite file, found none; write for example sqlite:///reviews.db"
        )
    if parsed.drivername == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    return parsed


def _create_engine(url: URL) -> Engine:
    is_sqlite = url.get_backend_name() == "sqlite"
    timeouts: dict[str, float] = {"connect_timeout": _POSTGRESQL_CONNECT_TIMEOUT}
    if is_sqlite:
        timeouts = {"timeout": _SQLITE_LOCK_TIMEOUT}
    # Each transaction opens a connection of its own. Reviews are rare, and so nothing is shared
    # between threads or forked processes.
    engine = create_engine(url, hide_parameters=True, poolclass=NullPool, connect_args=timeouts)
    if is_sqlite:
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: Any, record: Any) -> None:
    # The driver must not begin transactions: `_begin_sqlite` does.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _begin_sqlite(connection: Connection) -> None:
    # A transaction is a writer from its beginning. Two that first read and then write would lock
    # each other out.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _submit(item: ReviewItem, connection: Connection) -> Ticket:
    query = select(tickets).where(tickets.c.key == item.key)
    row = connection.execute(query).one_or_none()
    if row is not None:
        return _read_ticket(row)
    ticket = Ticket(id=uuid4().hex, item=item, created=datetime.now(UTC))
    values = item.model_dump() | {"metadata": json.dumps(item.metadata)}
    connection.execute(tickets.insert().values(id=ticket.id, created=ticket.created, **values))
    return ticket


def _get(ticket_id: str, connection: Connection) -> Ticket:
    return _read_ticket(_select_row(ticket_id, connection))


def _list(status: Status | None, limit: int, connection: Connection) -> list[Ticket]:
    query = select(tickets).order_by(tickets.c.created, tickets.c.id).limit(limit)
    if status == "open":
        query = query.where(tickets.c.action.is_(None))
    elif status is not None:
        query = query.where(tickets.c.action.is_not(None))
    return [_read_ticket(row) for row in connection.execute(query)]


def _decide(ticket_id: str, decision: Decision, connection: Connection) -> Ticket:
    ticket = _read_ticket(_select_row(ticket_id, connection, for_update=True))
    if ticket.decision is None:
        ticket = ticket.model_copy(update={"decision": decision, "decided": datetime.now(UTC)})
        values = decision.model_dump() | {"decided": ticket.decided}
        connection.execute(tickets.update().where(tickets.c.id == ticket_id).values(values))
        return ticket
    is_same = (ticket.decision.action, ticket.decision.text) == (decision.action, decision.text)
    if not is_same:
        raise ReviewConflictError(
            f"expected ticket {ticket_id} to be open, found it decided: {ticket.decision.action}; "
            "a decision stands, so submit the answer again under another key"
        )
    return ticket


def _select_row(ticket_id: str, connection: Connection, *, for_update: bool = False) -> Row[Any]:
    query = select(tickets).where(tickets.c.id == ticket_id)
    if for_update:
        query = query.with_for_update()
    row = connection.execute(query).one_or_none()
    if row is None:
        raise ReviewConflictError(
            f"expected the id of a ticket, found none with the id {ticket_id!r}; list them"
        )
    return row


def _read_ticket(row: Row[Any]) -> Ticket:
    values = row._mapping
    item_fields = {name: values[name] for name in ReviewItem.model_fields}
    item_fields["metadata"] = json.loads(values["metadata"])
    decision = None
    if values["action"] is not None:
        decision = Decision(**{name: values[name] for name in Decision.model_fields})
    decided = values["decided"]
    return Ticket(
        id=values["id"],
        item=ReviewItem(**item_fields),
        decision=decision,
        created=_to_utc(values["created"]),
        decided=None if decided is None else _to_utc(decided),
    )


def _to_utc(time: datetime) -> datetime:
    # SQLite keeps no time zone, but all times that we write are in UTC.
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _generate_pauses(timeout: float) -> Iterator[float | None]:
    """Yield the seconds to pause after each look, growing, and None after the last look."""
    end = monotonic() + timeout
    pause = _FIRST_PAUSE
    left = timeout
    while left > 0:
        yield min(pause, left)
        pause = min(_PAUSE_GROWTH * pause, _LONGEST_PAUSE)
        left = end - monotonic()
    yield None
