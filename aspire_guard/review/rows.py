"""Tickets and decisions, as rows of the tables."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.exc import SQLAlchemyError

from aspire_guard.errors import DamagedTicketError, ReviewConflictError
from aspire_guard.review.audit import make_search_text
from aspire_guard.review.item import Decision, ReviewItem
from aspire_guard.review.tables import opinions, tickets
from aspire_guard.review.ticket import Claim, Opinion, Ticket
from aspire_guard.review.transaction import Transaction

_TICKET_ID = re.compile(r"[0-9a-f]{32}")
# The search text repeats the others.
_COLUMNS = [column for column in tickets.c if column is not tickets.c.search_text]
# The fields of an item that have no column of their own.
_DETAILS = (
    "threshold", "score", "candidates", "sources", "context_source", "steps", "trace_id",
    "inclusion_probability",
)  # fmt: skip
_OWN_COLUMNS = tuple(
    name for name in ReviewItem.model_fields if name not in _DETAILS and name != "metadata"
)


def make_item_values(item: ReviewItem) -> dict[str, Any]:
    """Return the columns of an item by their names."""
    fields = item.model_dump()
    # Values that are the defaults are left out, so that most rows are short.
    details = item.model_dump(include=set(_DETAILS), exclude_defaults=True)
    return {
        **{name: fields[name] for name in _OWN_COLUMNS},
        "metadata": json.dumps(item.metadata),
        "details": json.dumps(details),
        "search_text": make_search_text(item.question, item.answer),
    }


def lock_ticket(transaction: Transaction, ticket_id: str) -> Ticket:
    """Read a ticket that no other transaction may change before the end of this one.

    Raises:
        ReviewConflictError: there is no ticket with this id.
        DamagedTicketError: its row can't be read.
    """
    return _read_one(transaction, ticket_id, is_locked=True)


def find_ticket(transaction: Transaction, ticket_id: str) -> Ticket:
    """Read a ticket; see `lock_ticket` for the errors."""
    return _read_one(transaction, ticket_id, is_locked=False)


def read_tickets(
    transaction: Transaction, ticket_ids: Sequence[str]
) -> tuple[list[Ticket], list[str]]:
    """Read tickets in the order of their ids, and return the ids of the damaged ones apart."""
    query = select(*_COLUMNS).where(tickets.c.id.in_(ticket_ids))
    try:
        rows = {row.id: row for row in transaction.connection.execute(query)}
    except SQLAlchemyError:
        if transaction.is_postgresql:
            raise
        # SQLite keeps any bytes in a text, and the driver fails on those that are not UTF-8.
        rows = {}
    found: list[Ticket] = []
    damaged: list[str] = []
    for ticket_id in ticket_ids:
        try:
            row = rows.get(ticket_id)
            if row is None:
                found.append(find_ticket(transaction, ticket_id))
            else:
                found.append(_parse_ticket(row, transaction.now))
        except DamagedTicketError:
            damaged.append(ticket_id)
    return found, damaged


def read_opinions(transaction: Transaction, ticket_id: str) -> list[Opinion]:
    """Read all decisions on a ticket, those that were undone included."""
    query = select(opinions).where(opinions.c.ticket == ticket_id).order_by(opinions.c.number)
    found: list[Opinion] = []
    for row in transaction.connection.execute(query):
        decision = Decision(
            action=row.action, text=row.text, reviewer=row.reviewer, comment=row.comment
        )
        found.append(
            Opinion(number=row.number, decision=decision, time=row.time, undone=row.undone)
        )
    return found


def _read_one(transaction: Transaction, ticket_id: str, *, is_locked: bool) -> Ticket:
    row: Row[Any] | None = None
    if _TICKET_ID.fullmatch(ticket_id):
        query = select(*_COLUMNS).where(tickets.c.id == ticket_id)
        if is_locked:
            query = query.with_for_update()
        try:
            row = transaction.connection.execute(query).one_or_none()
        except SQLAlchemyError as error:
            if "Could not decode to UTF-8" not in str(error.__cause__):
                raise
            raise _make_damage_error(ticket_id) from error
    if row is None:
        raise ReviewConflictError(
            f"expected the id of a ticket, found none with the id {ticket_id!r}; list them"
        )
    return _parse_ticket(row, transaction.now)


def _parse_ticket(row: Row[Any], now: datetime) -> Ticket:
    values = row._mapping
    try:
        fields = {name: values[name] for name in _OWN_COLUMNS}
        item = ReviewItem(
            **fields, metadata=json.loads(values["metadata"]), **json.loads(values["details"])
        )
        decision = None
        if values["action"] is not None:
            decision = Decision(**{name: values[name] for name in Decision.model_fields})
        is_overdue = values["expires"] is not None and values["expires"] <= now
        is_open = values["status"] == "open"
        return Ticket(
            id=values["id"],
            item=item,
            status="expired" if is_open and is_overdue else values["status"],
            decision=decision,
            created=values["created"],
            decided=values["decided"],
            expires=values["expires"],
            claim=_parse_claim(values, now),
            needs_second_opinion=values["needs_second_opinion"],
            n_opinions=values["n_opinions"],
            delivered=values["delivered"],
        )
    except (ValueError, TypeError) as error:
        raise _make_damage_error(str(values["id"])) from error


def _parse_claim(values: Any, now: datetime) -> Claim | None:
    if values["claimed_by"] is None or values["claimed_until"] <= now:
        return None
    return Claim(reviewer=values["claimed_by"], until=values["claimed_until"])


def _make_damage_error(ticket_id: str) -> DamagedTicketError:
    return DamagedTicketError(
        f"expected ticket {ticket_id} to be readable, found a damaged row; restore the database from a backup, or "
        "purge the ticket"
    )
