"""A transaction on the review queue's tables, and what it has changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection

from aspire_guard.review.ticket import Event, Ticket


@dataclass(frozen=True)
class Change:
    """A step in the life of a ticket that a transaction has made.

    Attributes:
        event: the step.
        ticket: the ticket after it.
    """

    event: Event
    ticket: Ticket


@dataclass(frozen=True)
class Transaction:
    """An open transaction.

    Attributes:
        connection: the connection to the database.
        now: the time of the transaction, in UTC, by the clock that all processes share.
        changed: the ids of the tickets that were changed so far.
        changes: the changes that listeners are told once the transaction is committed.
    """

    connection: Connection
    now: datetime
    changed: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)

    @property
    def is_postgresql(self) -> bool:
        """True in PostgreSQL, False in SQLite, which has one writer at a time and no row locks."""
        return self.connection.dialect.name == "postgresql"
