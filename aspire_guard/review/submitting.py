"""The ways into the queue and out of it without a decision: submission, withdrawal and expiry."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite

from aspire_guard.errors import ReviewConflictError
from aspire_guard.review.audit import append_entry, digest_item
from aspire_guard.review.item import ReviewItem
from aspire_guard.review.rows import find_ticket, lock_ticket, make_item_values
from aspire_guard.review.tables import tickets
from aspire_guard.review.ticket import Event, Ticket
from aspire_guard.review.transaction import Change, Transaction

_EXPIRED_PER_TRANSACTION = 500


def submit_item(
    transaction: Transaction,
    item: ReviewItem,
    *,
    expire_after: float | None,
    second_opinions: float,
) -> Ticket:
    """Insert a ticket, or return the ticket with the same key. One that ended without a decision is opened again.

    Args:
        transaction: the open transaction.
        item: the answer.
        expire_after: the seconds after which the ticket expires, or None for never.
        second_opinions: the share of the tickets that a second reviewer sees too, in [0, 1].
    """
    expires = None
    if expire_after is not None:
        expires = transaction.now + timedelta(seconds=expire_after)
    ticket_id = uuid4().hex
    values = make_item_values(item)
    row = {
        **values,
        "id": ticket_id,
        "created": transaction.now,
        "expires": expires,
        "needs_second_opinion": _draw(ticket_id) < second_opinions,
    }
    dialect: Any = postgresql if transaction.is_postgresql else sqlite
    statement = dialect.insert(tickets).values(row).on_conflict_do_nothing(index_elements=["key"])
    transaction.connection.execute(statement)
    query = select(tickets.c.id).where(tickets.c.key == item.key)
    found = transaction.connection.execute(query).scalar_one()
    if found == ticket_id:
        append_entry(transaction, ticket_id, "submitted", details={"item": digest_item(row)})
        return _note(transaction, ticket_id, "submitted")
    ticket = lock_ticket(transaction, found)
    if ticket.status in ("expired", "withdrawn"):
        return _reopen(transaction, ticket, expires)
    if ticket.status == "decided":
        return deliver(transaction, ticket)
    return ticket


def deliver(transaction: Transaction, ticket: Ticket) -> Ticket:
    """Note that the application was given the decision, which can't be undone from then on."""
    if ticket.delivered is not None:
        return ticket
    _update(transaction, ticket.id, delivered=transaction.now)
    append_entry(transaction, ticket.id, "delivered")
    return ticket.model_copy(update={"delivered": transaction.now})


def withdraw_ticket(transaction: Transaction, ticket_id: str) -> Ticket:
    """Take an open ticket back.

    Raises:
        ReviewConflictError: there is no ticket with this id, or it was decided.
    """
    ticket = lock_ticket(transaction, ticket_id)
    if ticket.status == "decided":
        raise ReviewConflictError(
            f"expected ticket {ticket_id} to be open, found it decided; a decision stands"
        )
    if ticket.status != "open":
        return ticket
    return _close(transaction, ticket_id, "withdrawn")


def expire_tickets(transaction: Transaction) -> list[Ticket]:
    """Close the open tickets whose time is over, up to 500 of them."""
    is_due = (tickets.c.status == "open") & (tickets.c.expires <= transaction.now)
    query = select(tickets.c.id).where(is_due).order_by(tickets.c.expires)
    query = query.limit(_EXPIRED_PER_TRANSACTION).with_for_update(skip_locked=True)
    due = transaction.connection.execute(query).scalars().all()
    return [_close(transaction, ticket_id, "expired") for ticket_id in due]


def _reopen(transaction: Transaction, ticket: Ticket, expires: Any) -> Ticket:
    _update(
        transaction,
        ticket.id,
        status="open",
        expires=expires,
        claimed_by=None,
        claimed_until=None,
        delivered=None,
    )
    append_entry(transaction, ticket.id, "reopened")
    return _note(transaction, ticket.id, "reopened")


def _close(transaction: Transaction, ticket_id: str, event: Event) -> Ticket:
    _update(transaction, ticket_id, status=event, claimed_by=None, claimed_until=None)
    append_entry(transaction, ticket_id, event)
    return _note(transaction, ticket_id, event)


def _update(transaction: Transaction, ticket_id: str, **values: Any) -> None:
    transaction.connection.execute(update(tickets).where(tickets.c.id == ticket_id).values(values))


def _note(transaction: Transaction, ticket_id: str, event: Event) -> Ticket:
    """Read the ticket as it is now, and note the change for the listeners."""
    ticket = find_ticket(transaction, ticket_id)
    transaction.changes.append(Change(event, ticket))
    return ticket


def _draw(ticket_id: str) -> float:
    """Return a number in [0, 1) that belongs to a ticket."""
    return int(hashlib.sha256(ticket_id.encode()).hexdigest()[:13], 16) / 16**13
