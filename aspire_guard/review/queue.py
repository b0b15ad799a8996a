"""The review queue: answers that wait for a person, in SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from aspire_guard.review.filters import Order
from aspire_guard.review.item import Decision, ReviewItem
from aspire_guard.review.settings import Listener
from aspire_guard.review.store import TicketStore
from aspire_guard.review.ticket import (
    AuditEntry,
    AuditReport,
    Opinion,
    Ticket,
    TicketCounts,
    TicketFilter,
    TicketPage,
)
from aspire_guard.review.waiting import await_decision
from aspire_guard.review.webhooks import Webhook
from aspire_guard.timeouts import run_in_thread

Result = TypeVar("Result")

_EVERYTHING = TicketFilter()


class ReviewQueue(TicketStore):
    """Answers that wait for a person.

    Each method is one transaction, and any number of threads and processes may share the queue. The database is
    opened, and its tables are created or brought to the present version, when the queue is first used. A pickled queue
    holds the URL with its password.

    Every method that reaches the database raises a ReviewQueueError if the database fails. The async twins work in a
    thread, off the event loop.

    Args:
        url: the URL of the database, as SQLAlchemy writes it: `sqlite:///reviews.db`, `postgresql://host/name`.
        lease: the seconds for which a claimed ticket belongs to its reviewer.
        undo_within: the seconds in which a reviewer can take a decision back.
        second_opinions: the share of the tickets that a second reviewer decides on too, in [0, 1]. If the two disagree,
            a third one settles the ticket.
        expire_after: the seconds after which an undecided ticket expires, and the guard takes the policy's next route,
            or None if tickets wait for ever.
        lock_timeout: the seconds to wait for another writer or for a locked table. A statement in PostgreSQL may take
            three times as long.
        webhooks: the addresses to be told of tickets.
        on_submit: called with each ticket that this process has submitted, after the commit.
        on_decision: called with each ticket that this process has decided, after the commit. An error of either one is
            logged, and the work goes on.

    Raises:
        InputError: the URL is neither one of SQLite nor one of PostgreSQL, its driver is unknown or not installed, or
            a setting is out of its range.
    """

    def __init__(
        self,
        url: str = "sqlite:///reviews.db",
        *,
        lease: float = 300.0,
        undo_within: float = 60.0,
        second_opinions: float = 0.0,
        expire_after: float | None = None,
        lock_timeout: float = 10.0,
        webhooks: Sequence[Webhook] = (),
        on_submit: Listener | None = None,
        on_decision: Listener | None = None,
    ) -> None:
        super().__init__(
            url,
            lease=lease,
            undo_within=undo_within,
            second_opinions=second_opinions,
            expire_after=expire_after,
            lock_timeout=lock_timeout,
            webhooks=webhooks,
            on_submit=on_submit,
            on_decision=on_decision,
        )

    async def asubmit(self, item: ReviewItem) -> Ticket:
        """Submit asynchronously; see `submit`."""
        return await _run(self.submit, item)

    async def aget(self, ticket_id: str) -> Ticket:
        """Get asynchronously; see `get`."""
        return await _run(self.get, ticket_id)

    async def alist(
        self,
        where: TicketFilter = _EVERYTHING,
        *,
        order: Order = "oldest",
        limit: int = 100,
        after: str | None = None,
    ) -> TicketPage:
        """List asynchronously; see `list`."""
        return await _run(self.list, where, order=order, limit=limit, after=after)

    async def acount(self, where: TicketFilter = _EVERYTHING) -> TicketCounts:
        """Count asynchronously; see `count`."""
        return await _run(self.count, where)

    async def aclaim(
        self,
        reviewer: str,
        ticket_id: str | None = None,
        *,
        where: TicketFilter = _EVERYTHING,
    ) -> Ticket | None:
        """Claim asynchronously; see `claim`."""
        return await _run(self.claim, reviewer, ticket_id, where=where)

    async def arelease(self, ticket_id: str, reviewer: str) -> Ticket:
        """Release asynchronously; see `release`."""
        return await _run(self.release, ticket_id, reviewer)

    async def adecide(self, ticket_id: str, decision: Decision) -> Ticket:
        """Decide asynchronously; see `decide`."""
        return await _run(self.decide, ticket_id, decision)

    async def aundo(self, ticket_id: str, reviewer: str | None = None) -> Ticket:
        """Undo asynchronously; see `undo`."""
        return await _run(self.undo, ticket_id, reviewer)

    async def awithdraw(self, ticket_id: str) -> Ticket:
        """Withdraw asynchronously; see `withdraw`."""
        return await _run(self.withdraw, ticket_id)

    async def aexpire(self) -> Sequence[Ticket]:
        """Expire asynchronously; see `expire`."""
        return await _run(self.expire)

    async def await_(self, ticket_id: str, timeout: float) -> Decision | None:
        """Wait asynchronously; see `wait`."""
        return await await_decision(self._database, self._watcher, ticket_id, timeout)

    async def aopinions(self, ticket_id: str) -> Sequence[Opinion]:
        """Return the opinions asynchronously; see `opinions`."""
        return await _run(self.opinions, ticket_id)

    async def ahistory(self, ticket_id: str) -> Sequence[AuditEntry]:
        """Return the history asynchronously; see `history`."""
        return await _run(self.history, ticket_id)

    async def averify(self, *, head: str | None = None) -> AuditReport:
        """Verify asynchronously; see `verify`."""
        return await _run(self.verify, head=head)

    async def apurge(
        self, where: TicketFilter = _EVERYTHING, *, ticket_ids: Sequence[str] = ()
    ) -> int:
        """Purge asynchronously; see `purge`."""
        return await _run(self.purge, where, ticket_ids=ticket_ids)


async def _run(method: Callable[..., Result], *arguments: Any, **settings: Any) -> Result:
    return await run_in_thread(partial(method, *arguments, **settings), None, "review queue")
