"""The store of tickets behind the review queue: each method is one transaction."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from pydantic import ValidationError

from aspire_guard.errors import InputError
from aspire_guard.files import describe_validation_error
from aspire_guard.review.audit import read_entries, verify_trail
from aspire_guard.review.database import Database
from aspire_guard.review.deciding import (
    claim_next,
    claim_ticket,
    decide_ticket,
    has_claimable,
    release_claim,
    undo_decision,
)
from aspire_guard.review.filters import Order, count_tickets, list_page
from aspire_guard.review.item import Decision, ReviewItem
from aspire_guard.review.retention import purge_closed, purge_tickets
from aspire_guard.review.rows import find_ticket, read_opinions
from aspire_guard.review.settings import Listener, QueueSettings
from aspire_guard.review.submitting import expire_tickets, submit_item, withdraw_ticket
from aspire_guard.review.ticket import (
    AuditEntry,
    AuditReport,
    Opinion,
    Ticket,
    TicketCounts,
    TicketFilter,
    TicketPage,
)
from aspire_guard.review.transaction import Transaction
from aspire_guard.review.waiting import generate_events, wait_for_decision
from aspire_guard.review.watching import ChangeWatcher
from aspire_guard.review.webhooks import WebhookSender

Result = TypeVar("Result")

_log = logging.getLogger(__name__)

_EVERYTHING = TicketFilter()


class TicketStore:
    """The sync methods of `ReviewQueue`, which describes the arguments.

    Attributes:
        settings: the settings of the queue.
    """

    def __init__(self, url: str = "sqlite:///reviews.db", **settings: Any) -> None:
        try:
            self.settings = QueueSettings(**settings)
        except ValidationError as error:
            raise InputError(
                f"{describe_validation_error(error, 'the review queue')}; fix it"
            ) from error
        self._database = Database(url, self.settings.lock_timeout)
        self._watcher = ChangeWatcher(self._database)
        self._sender = WebhookSender(self._database, self._watcher, self.settings.webhooks)

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy, perhaps in another process, opens the database for itself.
        settings = {name: getattr(self.settings, name) for name in self.settings.model_fields_set}
        url = self._database.url.render_as_string(hide_password=False)
        return partial(type(self), url, **settings), ()

    def __repr__(self) -> str:
        return f"ReviewQueue({str(self._database)!r})"

    def submit(self, item: ReviewItem) -> Ticket:
        """Submit an answer, and return its ticket.

        If there is a ticket with the same key, it is returned in its present state. A ticket that expired or was
        withdrawn is opened again, and a decision that is returned counts as delivered.
        """
        work = partial(
            submit_item,
            item=item,
            expire_after=self.settings.expire_after,
            second_opinions=self.settings.second_opinions,
        )
        return self._write(work)

    def get(self, ticket_id: str) -> Ticket:
        """Return a ticket by its id.

        Raises:
            ReviewConflictError: there is no ticket with this id.
            DamagedTicketError: its row can't be read.
        """
        return self._database.read(partial(find_ticket, ticket_id=ticket_id))

    def list(
        self,
        where: TicketFilter = _EVERYTHING,
        *,
        order: Order = "oldest",
        limit: int = 100,
        after: str | None = None,
    ) -> TicketPage:
        """Return a page of tickets, with the number of all tickets of the filter. Damaged rows don't stop it.

        Args:
            where: the tickets to list.
            order: "oldest" or "newest" first.
            limit: the greatest number of tickets in the page.
            after: `TicketPage.next` of the page before, or None for the first page.

        Raises:
            InputError: `after` is no place in a list.
        """
        work = partial(list_page, where=where, order=order, limit=limit, after=after)
        return self._database.read(work)

    def count(self, where: TicketFilter = _EVERYTHING) -> TicketCounts:
        """Count the tickets of a filter in each state."""
        return self._database.read(partial(count_tickets, where=where))

    def claim(
        self,
        reviewer: str,
        ticket_id: str | None = None,
        *,
        where: TicketFilter = _EVERYTHING,
    ) -> Ticket | None:
        """Claim a ticket for a reviewer, for the seconds of the lease. A claim of their own is extended.

        Args:
            reviewer: the person.
            ticket_id: the ticket, or None for the oldest one that is free and that they have not decided on yet.
            where: the tickets to choose from if `ticket_id` is None.

        Returns:
            The ticket, or None if no ticket is free.

        Raises:
            ReviewConflictError: the ticket is unknown or not open, another reviewer works on it, or this reviewer has
                decided on it already.
        """
        lease = self.settings.lease
        if ticket_id is None:
            # A reviewer who looks for work again and again should not keep SQLite's only writer waiting.
            if not self._database.read(partial(has_claimable, reviewer=reviewer, where=where)):
                return None
            return self._write(partial(claim_next, reviewer=reviewer, where=where, lease=lease))
        return self._write(
            partial(claim_ticket, ticket_id=ticket_id, reviewer=reviewer, lease=lease)
        )

    def release(self, ticket_id: str, reviewer: str) -> Ticket:
        """Give a claimed ticket back. Nothing changes if the reviewer has no claim on it.

        Raises:
            ReviewConflictError: there is no ticket with this id.
        """
        return self._write(partial(release_claim, ticket_id=ticket_id, reviewer=reviewer))

    def decide(self, ticket_id: str, decision: Decision) -> Ticket:
        """Decide on a ticket. The same decision by the same reviewer again changes nothing.

        A ticket that needs a second opinion stays open until another reviewer has decided too.

        Raises:
            ReviewConflictError: the ticket is unknown or not open, another reviewer works on it, or it needs another
                reviewer.
        """
        return self._write(partial(decide_ticket, ticket_id=ticket_id, decision=decision))

    def undo(self, ticket_id: str, reviewer: str | None = None) -> Ticket:
        """Take back the reviewer's last decision on a ticket, which is theirs to decide again.

        Raises:
            ReviewConflictError: the ticket is unknown, the last decision on it is by someone else or too old, or the
                application was given it already.
        """
        work = partial(
            undo_decision,
            ticket_id=ticket_id,
            reviewer=reviewer,
            within=self.settings.undo_within,
            lease=self.settings.lease,
        )
        return self._write(work)

    def withdraw(self, ticket_id: str) -> Ticket:
        """Take back an open ticket that nobody needs any more.

        Raises:
            ReviewConflictError: there is no ticket with this id, or it was decided.
        """
        return self._write(partial(withdraw_ticket, ticket_id=ticket_id))

    def expire(self) -> Sequence[Ticket]:
        """Close the open tickets whose time is over, and return them.

        `claim` and `wait` do this too, and all other methods treat such a ticket as expired.
        """
        expired: tuple[Ticket, ...] = ()
        while batch := self._write(expire_tickets):
            expired += tuple(batch)
        return expired

    def wait(self, ticket_id: str, timeout: float) -> Decision | None:
        """Wait for the decision on a ticket. Once it is returned it can't be undone any more.

        Args:
            ticket_id: the ticket.
            timeout: the seconds to wait.

        Returns:
            The decision, or None if the time is over, or the ticket expired or was withdrawn.

        Raises:
            ReviewConflictError: there is no ticket with this id.
        """
        return wait_for_decision(self._database, self._watcher, ticket_id, timeout)

    def events(
        self, *, after: int | None = None, timeout: float | None = None
    ) -> Iterator[AuditEntry]:
        """Yield the entries of the audit trail as they come, from all processes.

        Args:
            after: the number of the last entry that is known, or None for the entries from now on.
            timeout: the seconds after which to stop, or None to go on for ever.
        """
        return generate_events(self._database, self._watcher, after, timeout)

    def opinions(self, ticket_id: str) -> Sequence[Opinion]:
        """Return all decisions on a ticket in their order, those that were undone included."""
        return self._database.read(partial(read_opinions, ticket_id=ticket_id))

    def history(self, ticket_id: str) -> Sequence[AuditEntry]:
        """Return the audit trail of a ticket."""
        return self._database.read(
            lambda transaction: read_entries(transaction.connection, ticket_id=ticket_id)
        )

    def verify(self, *, head: str | None = None) -> AuditReport:
        """Check the audit trail: nothing in it was changed, removed or added, and the tickets are as it tells.

        Args:
            head: the head that an earlier check has reported. If it was kept outside of the database, the check also
                finds a trail that was rewritten as a whole.
        """
        return self._database.read(
            lambda transaction: verify_trail(transaction.connection, head=head)
        )

    def purge(self, where: TicketFilter = _EVERYTHING, *, ticket_ids: Sequence[str] = ()) -> int:
        """Erase tickets, their decisions, and the names and details in their audit trail, which stays verifiable.

        Args:
            where: the tickets to erase. Open tickets are left out.
            ticket_ids: erase these tickets instead, open ones included.

        Returns:
            The number of tickets that were erased.
        """
        if ticket_ids:
            n_purged = self._write(partial(purge_tickets, ticket_ids=ticket_ids))
        else:
            n_purged = 0
            while n := self._write(partial(purge_closed, where=where)):
                n_purged += n
        self._database.truncate_log()
        return n_purged

    def close(self) -> None:
        """Close the connections to the database. The queue opens new ones if it is used again."""
        self._database.close()

    def _write(self, work: Callable[[Transaction], Result]) -> Result:
        """Run a transaction, and tell the listeners of what it has changed."""
        self._sender.prepare()
        result, transaction = self._database.write(work)
        for change in transaction.changes:
            if change.event in ("submitted", "reopened"):
                _tell(self.settings.on_submit, change.ticket)
            elif change.event == "decided":
                _tell(self.settings.on_decision, change.ticket)
        return result


def _tell(listener: Listener | None, ticket: Ticket) -> None:
    if listener is None:
        return
    try:
        listener(ticket)
    except Exception as error:
        # The words of the error may quote the answer.
        name = type(error).__name__
        _log.warning("a listener of the review queue raised %s for ticket %s", name, ticket.id)
