"""The erasure of tickets and of the personal data in their audit trail."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, select

from aspire_guard.review.audit import append_entry, erase_entries
from aspire_guard.review.filters import make_conditions
from aspire_guard.review.tables import opinions, tickets
from aspire_guard.review.ticket import TicketFilter
from aspire_guard.review.transaction import Transaction

_PER_TRANSACTION = 200


def purge_closed(transaction: Transaction, where: TicketFilter) -> int:
    """Erase tickets that nobody waits for any more, up to 200 of them, and return their number."""
    is_closed = tickets.c.status != "open"
    query = select(tickets.c.id).where(is_closed, *make_conditions(transaction, where))
    query = query.order_by(tickets.c.created).limit(_PER_TRANSACTION)
    found = transaction.connection.execute(query.with_for_update(skip_locked=True)).scalars().all()
    return _purge(transaction, found)


def purge_tickets(transaction: Transaction, ticket_ids: Sequence[str]) -> int:
    """Erase tickets in whatever state they are, and return their number. Ids without a ticket are left out."""
    query = select(tickets.c.id).where(tickets.c.id.in_(ticket_ids)).with_for_update()
    return _purge(transaction, transaction.connection.execute(query).scalars().all())


def _purge(transaction: Transaction, ticket_ids: Sequence[str]) -> int:
    if not ticket_ids:
        return 0
    transaction.connection.execute(delete(opinions).where(opinions.c.ticket.in_(ticket_ids)))
    transaction.connection.execute(delete(tickets).where(tickets.c.id.in_(ticket_ids)))
    erase_entries(transaction, ticket_ids)
    for ticket_id in ticket_ids:
        append_entry(transaction, ticket_id, "purged")
    return len(ticket_ids)
