"""Filters as conditions of a query, and the lists and counts of tickets that they make."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, and_, case, func, literal, or_, select, tuple_

from aspire_guard.errors import InputError
from aspire_guard.review.rows import read_tickets
from aspire_guard.review.tables import UtcTime, escape_text, tickets
from aspire_guard.review.ticket import TicketCounts, TicketFilter, TicketPage
from aspire_guard.review.transaction import Transaction

Order = Literal["oldest", "newest"]


def make_conditions(transaction: Transaction, where: TicketFilter) -> list[ColumnElement[bool]]:
    """Return the conditions that all hold for the tickets of a filter."""
    columns, now = tickets.c, transaction.now
    conditions: list[ColumnElement[bool]] = []
    if where.status is not None:
        conditions.append(_has_status(where.status, now))
    if where.is_claimed is not None:
        is_claimed = and_(columns.claimed_by.is_not(None), columns.claimed_until > now)
        is_free = or_(columns.claimed_by.is_(None), columns.claimed_until <= now)
        conditions.append(is_claimed if where.is_claimed else is_free)
    if where.group is not None:
        conditions.append(columns.group == where.group)
    if where.min_confidence is not None:
        conditions.append(columns.confidence >= where.min_confidence)
    if where.max_confidence is not None:
        conditions.append(columns.confidence <= where.max_confidence)
    if where.created_after is not None:
        conditions.append(columns.created >= where.created_after)
    if where.created_before is not None:
        conditions.append(columns.created < where.created_before)
    if where.reviewer is not None:
        works_on_it = and_(columns.claimed_by == where.reviewer, columns.claimed_until > now)
        conditions.append(or_(columns.reviewer == where.reviewer, works_on_it))
    if where.text:
        needle = escape_text(where.text.casefold())
        # LIKE would need its wildcards escaped, and SQLite's ignores the case of ASCII letters only.
        find = func.strpos if transaction.is_postgresql else func.instr
        conditions.append(find(columns.search_text, needle) > 0)
    if where.is_released is not None:
        conditions.append(columns.is_released.is_(where.is_released))
    for expected, column in (
        (where.is_delivered, columns.delivered),
        (where.has_thread, columns.thread_id),
    ):
        if expected is not None:
            conditions.append(column.is_not(None) if expected else column.is_(None))
    return conditions


def list_page(
    transaction: Transaction, where: TicketFilter, order: Order, limit: int, after: str | None
) -> TicketPage:
    """Return a page of tickets.

    Args:
        transaction: the open transaction.
        where: the tickets to list.
        order: the oldest or the newest first.
        limit: the greatest number of tickets in the page.
        after: `TicketPage.next` of the page before, or None for the first page.

    Raises:
        InputError: `after` is no place in a list.
    """
    conditions = make_conditions(transaction, where)
    position = tuple_(tickets.c.created, tickets.c.id)
    query = select(tickets.c.created, tickets.c.id).where(*conditions)
    if after is not None:
        created, ticket_id = _parse_place(after)
        last = tuple_(literal(created, UtcTime), literal(ticket_id))
        query = query.where(position > last if order == "oldest" else position < last)
    if order == "oldest":
        query = query.order_by(tickets.c.created, tickets.c.id)
    else:
        query = query.order_by(tickets.c.created.desc(), tickets.c.id.desc())
    rows = transaction.connection.execute(query.limit(limit + 1)).all()
    page_rows = rows[:limit]
    found, damaged = read_tickets(transaction, [row.id for row in page_rows])
    count = select(func.count()).select_from(tickets).where(*conditions)
    return TicketPage(
        tickets=tuple(found),
        total=transaction.connection.execute(count).scalar_one(),
        next=_make_place(page_rows[-1]) if len(rows) > limit else None,
        damaged=tuple(damaged),
    )


def count_tickets(transaction: Transaction, where: TicketFilter) -> TicketCounts:
    """Count the tickets of a filter in each state."""
    now, columns = transaction.now, tickets.c
    is_overdue = and_(columns.status == "open", columns.expires <= now)
    status = case((is_overdue, "expired"), else_=columns.status)
    claimed = case((columns.claimed_until > now, 1), else_=0)
    query = (
        select(status, func.count(), func.sum(claimed), func.min(columns.created))
        .where(*make_conditions(transaction, where))
        .group_by(status)
    )
    counts: dict[str, int] = {}
    n_claimed = 0
    oldest: datetime | None = None
    for state, count, n_with_claim, first in transaction.connection.execute(query):
        counts[state] = count
        if state == "open":
            n_claimed, oldest = n_with_claim, first
    return TicketCounts(**counts, claimed=n_claimed, oldest_open=oldest)


def _has_status(status: str, now: datetime) -> ColumnElement[bool]:
    """Return the condition that a ticket has a status. Nobody may have closed an overdue ticket yet."""
    has_status = tickets.c.status == status
    expires = tickets.c.expires
    if status == "open":
        return and_(has_status, or_(expires.is_(None), expires > now))
    if status == "expired":
        return or_(has_status, and_(tickets.c.status == "open", expires <= now))
    return has_status


def _make_place(row: Row[Any, Any]) -> str:
    created = row.created.isoformat() if isinstance(row.created, datetime) else row.created
    return f"{created}~{row.id}"


def _parse_place(place: str) -> tuple[datetime, str]:
    created, _, ticket_id = place.partition("~")
    try:
        return datetime.fromisoformat(created), ticket_id
    except ValueError as error:
        raise InputError(
            f"expected the place of a page, found {place!r}; pass the `next` of the page before"
        ) from error
