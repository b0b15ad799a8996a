"""Waiting for a decision, and for the events of all tickets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from time import monotonic

from aspire_guard.review.audit import count_entries, read_entries
from aspire_guard.review.database import Database
from aspire_guard.review.item import Decision
from aspire_guard.review.rows import find_ticket, lock_ticket
from aspire_guard.review.submitting import deliver, expire_tickets
from aspire_guard.review.ticket import AuditEntry, Ticket
from aspire_guard.review.transaction import Transaction
from aspire_guard.review.watching import ChangeWatcher
from aspire_guard.timeouts import run_in_thread

# The seconds after which a ticket is looked at even if no change was told: a connection may be lost unseen.
_LONGEST_PAUSE = 5.0


def wait_for_decision(
    database: Database, watcher: ChangeWatcher, ticket_id: str, timeout: float
) -> Decision | None:
    """Wait for the decision on a ticket; see `ReviewQueue.wait`."""
    end = monotonic() + timeout
    look = partial(_look, database, ticket_id)
    with watcher.watch(ticket_id) as flag:
        while True:
            flag.clear()
            ticket = look()
            pause = _choose_pause(ticket, end)
            if pause is None:
                return ticket.decision
            watcher.start()
            flag.wait(pause)


async def await_decision(
    database: Database, watcher: ChangeWatcher, ticket_id: str, timeout: float
) -> Decision | None:
    """Wait off the event loop; see `ReviewQueue.wait`."""
    end = monotonic() + timeout
    look = partial(_look, database, ticket_id)
    with watcher.awatch(ticket_id) as flag:
        while True:
            flag.clear()
            ticket = await run_in_thread(look, None, "review queue")
            pause = _choose_pause(ticket, end)
            if pause is None:
                return ticket.decision
            watcher.start()
            try:
                await asyncio.wait_for(flag.wait(), pause)
            except TimeoutError:
                continue


def generate_events(
    database: Database, watcher: ChangeWatcher, after: int | None, timeout: float | None
) -> Iterator[AuditEntry]:
    """Yield entries of the audit trail as they come; see `ReviewQueue.events`."""
    end = None if timeout is None else monotonic() + timeout
    last = database.read(_count) if after is None else after
    with watcher.watch(None) as flag:
        while True:
            flag.clear()
            read: Callable[[Transaction], list[AuditEntry]] = partial(_read_after, last)
            for entry in database.read(read):
                yield entry
                last = entry.number
            pause = _LONGEST_PAUSE if end is None else min(_LONGEST_PAUSE, end - monotonic())
            if pause <= 0:
                return
            watcher.start()
            flag.wait(pause)


def _look(database: Database, ticket_id: str) -> Ticket:
    """Return a ticket as it is now. One with a decision is noted as delivered, and one whose time is over is closed."""
    ticket = database.read(lambda transaction: find_ticket(transaction, ticket_id))
    if ticket.status == "expired":
        database.write(expire_tickets)
    if ticket.status == "decided" and ticket.delivered is None:
        # Somebody may have undone the decision meanwhile.
        ticket, _ = database.write(partial(_deliver, ticket_id))
    return ticket


def _deliver(ticket_id: str, transaction: Transaction) -> Ticket:
    ticket = lock_ticket(transaction, ticket_id)
    return deliver(transaction, ticket) if ticket.status == "decided" else ticket


def _choose_pause(ticket: Ticket, end: float) -> float | None:
    """Return the seconds until the next look at a ticket, or None to wait no longer."""
    pause = min(_LONGEST_PAUSE, end - monotonic())
    if ticket.status != "open" or pause <= 0:
        return None
    if ticket.expires is not None:
        left = (ticket.expires - datetime.now(UTC)).total_seconds()
        pause = min(pause, max(left, 0.05))
    return pause


def _count(transaction: Transaction) -> int:
    return count_entries(transaction.connection)


def _read_after(last: int, transaction: Transaction) -> list[AuditEntry]:
    return read_entries(transaction.connection, after=last)
