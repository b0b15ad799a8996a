"""The work of reviewers: claims, decisions, and taking a decision back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import Select, exists, insert, select, update

from aspire_guard.errors import ReviewConflictError
from aspire_guard.review.audit import append_entry, digest_decision
from aspire_guard.review.filters import make_conditions
from aspire_guard.review.item import Decision
from aspire_guard.review.rows import find_ticket, lock_ticket, read_opinions, read_tickets
from aspire_guard.review.submitting import expire_tickets
from aspire_guard.review.tables import opinions, tickets
from aspire_guard.review.ticket import Event, Opinion, Ticket, TicketFilter
from aspire_guard.review.transaction import Change, Transaction

# With a second reviewer: two who agree settle a ticket, or else the third one does.
_MAX_OPINIONS = 3


def has_claimable(transaction: Transaction, reviewer: str, where: TicketFilter) -> bool:
    """Tell whether there is a ticket that `claim_next` would try."""
    query = _select_claimable(transaction, reviewer, where).limit(1)
    return transaction.connection.execute(query).scalar() is not None


def claim_next(
    transaction: Transaction, reviewer: str, where: TicketFilter, lease: float
) -> Ticket | None:
    """Claim the oldest open ticket that nobody works on, and that the reviewer has not decided on yet.

    Args:
        transaction: the open transaction.
        reviewer: the person.
        where: the tickets to choose from.
        lease: the seconds for which the ticket is theirs.

    Returns:
        The ticket, or None if there is none to claim.
    """
    expire_tickets(transaction)
    query = _select_claimable(transaction, reviewer, where).limit(1)
    query = query.with_for_update(skip_locked=True)
    damaged: list[str] = []
    while True:
        ticket_id = transaction.connection.execute(
            query.where(tickets.c.id.not_in(damaged))
        ).scalar()
        if ticket_id is None:
            return None
        found, _ = read_tickets(transaction, [ticket_id])
        if found:
            return _claim(transaction, found[0], reviewer, lease)
        damaged.append(ticket_id)


def claim_ticket(transaction: Transaction, ticket_id: str, reviewer: str, lease: float) -> Ticket:
    """Claim one ticket, or extend the lease of a claim.

    Raises:
        ReviewConflictError: there is no such open ticket, another reviewer works on it, or this one has decided on it.
    """
    ticket = lock_ticket(transaction, ticket_id)
    _check_open(ticket)
    _check_claim(ticket, reviewer)
    _check_new_reviewer(ticket_id, _list_valid_opinions(transaction, ticket), reviewer)
    return _claim(transaction, ticket, reviewer, lease)


def release_claim(transaction: Transaction, ticket_id: str, reviewer: str) -> Ticket:
    """Give a claimed ticket back. Nothing changes if the reviewer has no claim on it.

    Raises:
        ReviewConflictError: there is no ticket with this id.
    """
    ticket = lock_ticket(transaction, ticket_id)
    if ticket.claim is None or ticket.claim.reviewer != reviewer:
        return ticket
    _update(transaction, ticket_id, claimed_by=None, claimed_until=None)
    return _note(transaction, ticket_id, "released", reviewer)


def decide_ticket(transaction: Transaction, ticket_id: str, decision: Decision) -> Ticket:
    """Add a reviewer's decision to a ticket. The same decision by the same reviewer again changes nothing.

    Raises:
        ReviewConflictError: there is no such open ticket, another reviewer works on it, or it needs another reviewer.
    """
    ticket = lock_ticket(transaction, ticket_id)
    before = _list_valid_opinions(transaction, ticket)
    own = [opinion for opinion in before if opinion.decision.reviewer == decision.reviewer]
    if own and _is_same(own[-1].decision, decision):
        return ticket
    _check_open(ticket)
    _check_claim(ticket, decision.reviewer)
    _check_new_reviewer(ticket_id, before, decision.reviewer)
    _insert_opinion(transaction, ticket_id, decision)
    changes: dict[str, Any] = {
        "n_opinions": len(before) + 1,
        "claimed_by": None,
        "claimed_until": None,
    }
    is_settled = _is_settled(ticket, before, decision)
    if is_settled:
        changes |= {**decision.model_dump(), "status": "decided", "decided": transaction.now}
    _update(transaction, ticket_id, **changes)
    details: dict[str, Any] = {"action": decision.action}
    # The digest of the decision that stands belongs to the settling entry.
    digest = digest_decision(decision.model_dump())
    details["decision" if is_settled else "opinion"] = digest
    event: Event = "decided" if is_settled else "reviewed"
    return _note(transaction, ticket_id, event, decision.reviewer, details)


def undo_decision(
    transaction: Transaction,
    ticket_id: str,
    reviewer: str | None,
    *,
    within: float,
    lease: float,
) -> Ticket:
    """Take back the last decision on a ticket, which is open then and claimed by the same reviewer.

    Args:
        transaction: the open transaction.
        ticket_id: the ticket.
        reviewer: the person who decided.
        within: the seconds after the decision in which it can be undone.
        lease: the seconds for which the ticket is theirs again.

    Raises:
        ReviewConflictError: there is no such ticket, the last decision on it is by someone else or too old, or the
            application was given it already.
    """
    ticket = lock_ticket(transaction, ticket_id)
    valid = _list_valid_opinions(transaction, ticket)
    last = valid[-1] if valid else None
    if last is None or last.decision.reviewer != reviewer:
        raise ReviewConflictError(
            f"expected a last decision on ticket {ticket_id} by {reviewer!r}, found none; only the reviewer can undo it"
        )
    if ticket.delivered is not None:
        raise ReviewConflictError(
            f"expected the decision on ticket {ticket_id} not to be delivered yet, found it delivered; it stands"
        )
    if ticket.status not in ("open", "decided"):
        raise ReviewConflictError(
            f"expected ticket {ticket_id} to be open or decided, found it {ticket.status}; submit the answer again"
        )
    age = (transaction.now - last.time).total_seconds()
    if age > within:
        raise ReviewConflictError(
            f"expected a decision of the last {within:.0f} s, found one {age:.0f} s old; it stands"
        )
    is_last = (opinions.c.ticket == ticket_id) & (opinions.c.number == last.number)
    transaction.connection.execute(update(opinions).where(is_last).values(undone=transaction.now))
    cleared: dict[str, Any] = dict.fromkeys(("decided", *Decision.model_fields))
    if reviewer is not None:
        cleared["claimed_by"] = reviewer
        cleared["claimed_until"] = transaction.now + timedelta(seconds=lease)
    _update(transaction, ticket_id, status="open", n_opinions=len(valid) - 1, **cleared)
    return _note(transaction, ticket_id, "undone", reviewer)


def _select_claimable(transaction: Transaction, reviewer: str, where: TicketFilter) -> Select[str]:
    """Select the ids of the tickets that a reviewer may claim, the oldest first."""
    open_ones = where.model_copy(update={"status": "open", "is_claimed": False})
    has_decided = exists().where(
        opinions.c.ticket == tickets.c.id,
        opinions.c.reviewer == reviewer,
        opinions.c.undone.is_(None),
    )
    return (
        select(tickets.c.id)
        .where(*make_conditions(transaction, open_ones))
        .where((tickets.c.n_opinions == 0) | ~has_decided)
        .order_by(tickets.c.created, tickets.c.id)
    )


def _is_settled(ticket: Ticket, before: list[Opinion], decision: Decision) -> bool:
    if not ticket.needs_second_opinion or len(before) + 1 >= _MAX_OPINIONS:
        return True
    return bool(before) and before[-1].decision.action == decision.action


def _list_valid_opinions(transaction: Transaction, ticket: Ticket) -> list[Opinion]:
    if ticket.n_opinions == 0:
        return []
    found = read_opinions(transaction, ticket.id)
    return [opinion for opinion in found if opinion.undone is None]


def _is_same(first: Decision, second: Decision) -> bool:
    return (first.action, first.text) == (second.action, second.text)


def _check_open(ticket: Ticket) -> None:
    if ticket.status == "open":
        return
    found = ticket.status if ticket.decision is None else f"decided: {ticket.decision.action}"
    raise ReviewConflictError(
        f"expected ticket {ticket.id} to be open, found it {found}; "
        "a decision stands, so submit the answer again under another key"
    )


def _check_claim(ticket: Ticket, reviewer: str | None) -> None:
    if ticket.claim is not None and ticket.claim.reviewer != reviewer:
        raise ReviewConflictError(
            f"expected ticket {ticket.id} to be free, found it claimed by {ticket.claim.reviewer!r} until "
            f"{ticket.claim.until:%H:%M:%S} UTC; take another ticket"
        )


def _check_new_reviewer(ticket_id: str, before: list[Opinion], reviewer: str | None) -> None:
    """Make sure that a further decision on a ticket is by another person, who has a name."""
    if not before:
        return
    names = [opinion.decision.reviewer for opinion in before]
    if reviewer is None or None in names or reviewer in names:
        found = "nobody's name" if reviewer is None else repr(reviewer)
        raise ReviewConflictError(
            f"expected another reviewer for the second opinion on ticket {ticket_id}, found {found}; "
            "let another person decide, under their own name"
        )


def _claim(transaction: Transaction, ticket: Ticket, reviewer: str, lease: float) -> Ticket:
    until = transaction.now + timedelta(seconds=lease)
    _update(transaction, ticket.id, claimed_by=reviewer, claimed_until=until)
    return _note(transaction, ticket.id, "claimed", reviewer)


def _insert_opinion(transaction: Transaction, ticket_id: str, decision: Decision) -> None:
    # Numbers are never used twice, even if a decision is undone.
    number = len(read_opinions(transaction, ticket_id)) + 1
    values = decision.model_dump() | {
        "ticket": ticket_id,
        "number": number,
        "time": transaction.now,
    }
    transaction.connection.execute(insert(opinions).values(values))


def _update(transaction: Transaction, ticket_id: str, **values: Any) -> None:
    transaction.connection.execute(update(tickets).where(tickets.c.id == ticket_id).values(values))


def _note(
    transaction: Transaction,
    ticket_id: str,
    event: Event,
    actor: str | None,
    details: dict[str, Any] | None = None,
) -> Ticket:
    """Append an entry to the audit trail, and note the change for the listeners."""
    append_entry(transaction, ticket_id, event, actor, details)
    ticket = find_ticket(transaction, ticket_id)
    transaction.changes.append(Change(event, ticket))
    return ticket
