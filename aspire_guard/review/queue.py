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
from aspire_guard.review.tables import prepare, tickets
from aspire_guard.timeouts import run_in_thread

Result = TypeVar("Result")

_SQLITE_PATIENCE = 30.0
_POSTGRESQL_PATIENCE = 10
# Pauses between looks at a ticket that is waited for, in seconds.
_FIRST_LOOK, _LAST_LOOK = 0.05, 1.0


class ReviewQueue:
    """Answers that wait for a person. Each method is one transaction; any number of processes may share the queue.

    The database is opened, and its tables are created, when the queue is first used.

    Args:
        url: of the database, as SQLAlchemy writes it: `sqlite:///reviews.db`, `postgresql+psycopg://host/name`.

    Raises:
        InputError: the URL is none of SQLite or PostgreSQL.
    """

    def __init__(self, url: str = "sqlite:///reviews.db") -> None:
        try:
            self._url = make_url(url)
        except ArgumentError as error:
            raise InputError(
                f"expected the URL of a database, found {url!r}; write sqlite:///reviews.db, say"
            ) from error
        if self._url.get_backend_name() not in ("sqlite", "postgresql"):
            found = self._url.get_backend_name()
            raise InputError(
                f"expected a URL of sqlite or postgresql, found one of {found}; use one of these two"
            )
        if self._url.get_backend_name() == "sqlite" and self._url.database in (
            None,
            "",
            ":memory:",
        ):
            raise InputError(
                "expected the path of a SQLite file, found none; write sqlite:///reviews.db, say"
            )
        if self._url.drivername == "postgresql":
            self._url = self._url.set(drivername="postgresql+psycopg")
        self._engine = _engine(self._url)
        self._lock, self._prepared = Lock(), False

    def __repr__(self) -> str:
        return f"ReviewQueue({self._url.render_as_string(hide_password=True)!r})"

    def submit(self, item: ReviewItem) -> Ticket:
        """Hand in an answer; one with the same key gives the ticket that is there, as it stands.

        Raises:
            ReviewQueueError: the database fails, here and in all other methods.
        """
        try:
            return self._in_transaction(partial(_submit, item))
        except IntegrityError:
            # Another process came first between the look and the insert: now it is there.
            return self._in_transaction(partial(_submit, item))

    def get(self, ticket_id: str) -> Ticket:
        """A ticket by its id.

        Raises:
            ReviewConflictError: there is none.
        """
        return self._in_transaction(partial(_get, ticket_id))

    def list(self, status: Status | None = None, limit: int = 100) -> list[Ticket]:
        """Tickets from the oldest to the newest.

        Args:
            status: "open" or "decided"; None for both.
            limit: how many at most.
        """
        return self._in_transaction(partial(_list, status, limit))

    def decide(self, ticket_id: str, decision: Decision) -> Ticket:
        """Decide; the same decision again changes nothing.

        Raises:
            ReviewConflictError: there is no such ticket, or it was decided otherwise.
        """
        return self._in_transaction(partial(_decide, ticket_id, decision))

    def wait(self, ticket_id: str, timeout: float) -> Decision | None:
        """The decision, as soon as there is one; None after `timeout` seconds.

        Raises:
            ReviewConflictError: there is no such ticket.
        """
        for pause in _pauses(timeout):
            decision = self.get(ticket_id).decision
            if decision is not None or pause is None:
                return decision
            sleep(pause)
        return None

    async def await_(self, ticket_id: str, timeout: float) -> Decision | None:
        """As `wait`, off the event loop."""
        for pause in _pauses(timeout):
            ticket = await run_in_thread(partial(self.get, ticket_id), None, "review queue")
            if ticket.decision is not None or pause is None:
                return ticket.decision
            await asyncio.sleep(pause)
        return None

    def _in_transaction(self, work: Callable[[Connection], Result]) -> Result:
        with self._failing_clearly():
            self._prepare()
            with self._engine.begin() as connection:
                return work(connection)

    def _prepare(self) -> None:
        with self._lock:
            if self._prepared:
                return
            try:
                with self._engine.begin() as connection:
                    prepare(connection)
            except (IntegrityError, OperationalError, ProgrammingError):
                # Another process created the tables meanwhile; if it is something else it happens again.
                with self._engine.begin() as connection:
                    prepare(connection)
            self._prepared = True

    @contextmanager
    def _failing_clearly(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise
        except SQLAlchemyError as error:
            found = type(error.__cause__ or error).__name__
            # Without the database's own words: they may hold the answer.
            raise ReviewQueueError(
                f"expected the database of {self!r} to answer, found {found}; check that it runs and can be written"
            ) from error


def _engine(url: URL) -> Engine:
    sqlite = url.get_backend_name() == "sqlite"
    patience = (
        {"timeout": _SQLITE_PATIENCE} if sqlite else {"connect_timeout": _POSTGRESQL_PATIENCE}
    )
    # A connection each time: reviews are rare, and so nothing is shared between threads or forked processes.
    engine = create_engine(url, hide_parameters=True, poolclass=NullPool, connect_args=patience)
    if not sqlite:
        return engine

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # we begin transactions ourselves, below
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # At once as a writer: two that read first and write then would lock each other out.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _submit(item: ReviewItem, connection: Connection) -> Ticket:
    row = connection.execute(select(tickets).where(tickets.c.key == item.key)).one_or_none()
    if row is not None:
        return _ticket(row)
    values = item.model_dump() | {"metadata": json.dumps(item.metadata)}
    ticket = Ticket(id=uuid4().hex, item=item, created=datetime.now(UTC))
    connection.execute(tickets.insert().values(id=ticket.id, created=ticket.created, **values))
    return ticket


def _get(ticket_id: str, connection: Connection) -> Ticket:
    return _ticket(_row(ticket_id, connection))


def _list(status: Status | None, limit: int, connection: Connection) -> list[Ticket]:
    query = select(tickets).order_by(tickets.c.created, tickets.c.id).limit(limit)
    if status is not None:
        query = query.where(
            tickets.c.action.is_(None) if status == "open" else tickets.c.action.is_not(None)
        )
    return [_ticket(row) for row in connection.execute(query)]


def _decide(ticket_id: str, decision: Decision, connection: Connection) -> Ticket:
    ticket = _ticket(_row(ticket_id, connection, for_update=True))
    if ticket.decision is None:
        ticket = ticket.model_copy(update={"decision": decision, "decided": datetime.now(UTC)})
        values = decision.model_dump() | {"decided": ticket.decided}
        connection.execute(tickets.update().where(tickets.c.id == ticket_id).values(values))
    elif (ticket.decision.action, ticket.decision.text) != (decision.action, decision.text):
        raise ReviewConflictError(
            f"expected ticket {ticket_id} to be open, found it decided: {ticket.decision.action}; "
            "a decision stands, so submit the answer again under another key"
        )
    return ticket


def _row(ticket_id: str, connection: Connection, *, for_update: bool = False) -> Row[Any]:
    query = select(tickets).where(tickets.c.id == ticket_id)
    row = connection.execute(query.with_for_update() if for_update else query).one_or_none()
    if row is None:
        raise ReviewConflictError(
            f"expected the id of a ticket, found none with the id {ticket_id!r}; list them"
        )
    return row


def _ticket(row: Row[Any]) -> Ticket:
    values = row._mapping
    item = {name: values[name] for name in ReviewItem.model_fields} | {
        "metadata": json.loads(values["metadata"])
    }
    decision = None
    if values["action"] is not None:
        decision = Decision(**{name: values[name] for name in Decision.model_fields})
    return Ticket(
        id=values["id"],
        item=ReviewItem(**item),
        decision=decision,
        created=_utc(values["created"]),
        decided=None if values["decided"] is None else _utc(values["decided"]),
    )


def _utc(moment: datetime) -> datetime:
    # SQLite keeps no time zone; all that we write is UTC.
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _pauses(timeout: float) -> Iterator[float | None]:
    """Seconds until the next look, growing; None once no time is left for another."""
    end, pause = monotonic() + timeout, _FIRST_LOOK
    while (left := end - monotonic()) > 0:
        yield min(pause, left)
        pause = min(1.5 * pause, _LAST_LOOK)
    yield None
