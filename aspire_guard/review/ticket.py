"""Tickets: items in the queue with their state, and the lists and counts of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, overload

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue

from aspire_guard.review.item import Decision, ReviewItem

Status = Literal["open", "decided", "expired", "withdrawn"]
Event = Literal[
    "submitted", "reopened", "claimed", "released", "reviewed", "decided", "undone",
    "delivered", "expired", "withdrawn", "imported", "purged",
]  # fmt: skip


class Claim(BaseModel):
    """A reviewer's claim on an open ticket.

    Attributes:
        reviewer: the person who works on it.
        until: the end of the lease, in UTC. Then anyone may claim the ticket.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reviewer: str
    until: datetime


class Opinion(BaseModel):
    """A reviewer's decision on a ticket, which is the only one unless the ticket has a second reviewer.

    Attributes:
        number: 1 for the first decision on the ticket, and so on.
        decision: the decision.
        time: the time of the decision, in UTC.
        undone: the time at which the reviewer took it back, or None if it counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    decision: Decision
    time: datetime
    undone: datetime | None = None


class Ticket(BaseModel):
    """An item in the queue.

    Attributes:
        id: the name of the ticket.
        item: the answer that was submitted.
        status: "open", "decided", "expired" without a decision, or "withdrawn" by whoever had submitted it.
        decision: the decision on it, or None without one.
        created: the time of submission, in UTC.
        decided: the time of the decision, in UTC, or None without one.
        expires: the time at which it expires unless someone decides, in UTC, or None if it waits for ever.
        claim: the reviewer who works on it, or None.
        needs_second_opinion: True if two reviewers must agree, or else a third one decides.
        n_opinions: the number of reviewers who have decided so far.
        delivered: the time at which the application was given the decision, in UTC, or None. From then on it can't
            be undone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    item: ReviewItem
    status: Status = "open"
    decision: Decision | None = None
    created: datetime
    decided: datetime | None = None
    expires: datetime | None = None
    claim: Claim | None = None
    needs_second_opinion: bool = False
    n_opinions: int = 0
    delivered: datetime | None = None


class TicketFilter(BaseModel):
    """The tickets to list, count, claim or export. A field that is None leaves no ticket out.

    Attributes:
        status: the state of the tickets.
        is_claimed: True for tickets that a reviewer works on now, False for all others.
        group: the group of the answers.
        min_confidence: the lowest confidence, in [0, 1]. It leaves out answers without a confidence.
        max_confidence: the highest confidence, in [0, 1]. It leaves out answers without a confidence.
        created_after: the earliest time of submission.
        created_before: the time of submission that is too late.
        reviewer: the person who decided, or who works on the ticket now.
        text: a text in the question or the answer, in any case.
        is_released: True for audited answers that have left already, False for answers that are held back.
        is_delivered: True for tickets whose decision the application was given.
        has_thread: True for tickets that a paused graph waits for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Status | None = None
    is_claimed: bool | None = None
    group: str | None = None
    min_confidence: float | None = Field(default=None, ge=0, le=1)
    max_confidence: float | None = Field(default=None, ge=0, le=1)
    created_after: AwareDatetime | None = None
    created_before: AwareDatetime | None = None
    reviewer: str | None = None
    text: str | None = None
    is_released: bool | None = None
    is_delivered: bool | None = None
    has_thread: bool | None = None


@dataclass(frozen=True)
class TicketPage(Sequence[Ticket]):
    """Some of the tickets of a list, as a sequence.

    Attributes:
        tickets: the tickets.
        total: the number of tickets in the whole list.
        next: the place of the next page, or None on the last page.
        damaged: the ids of tickets in this page whose rows can't be read.
    """

    tickets: tuple[Ticket, ...]
    total: int
    next: str | None = None
    damaged: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.tickets)

    @overload
    def __getitem__(self, index: int) -> Ticket: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Ticket, ...]: ...

    def __getitem__(self, index: int | slice) -> Ticket | tuple[Ticket, ...]:
        return self.tickets[index]


class TicketCounts(BaseModel):
    """The number of tickets in each state.

    Attributes:
        open: the tickets that wait, those that someone works on included.
        claimed: the open tickets that someone works on.
        decided: the tickets with a decision.
        expired: the tickets that nobody decided on in time.
        withdrawn: the tickets that were taken back.
        oldest_open: the time of submission of the oldest open ticket, in UTC, or None if no ticket is open.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    open: int = 0
    claimed: int = 0
    decided: int = 0
    expired: int = 0
    withdrawn: int = 0
    oldest_open: datetime | None = None


class AuditEntry(BaseModel):
    """An entry of the audit trail: who did what, and when.

    Attributes:
        number: its place in the trail, from 1 on.
        ticket: the id of the ticket.
        event: the thing that was done.
        time: the time, in UTC.
        actor: the person who did it, or None if it was no person or the entry was erased.
        details: more about it. Empty if the entry was erased.
        is_erased: True if the personal data of the ticket was erased.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    ticket: str
    event: Event
    time: datetime
    actor: str | None = None
    details: dict[str, JsonValue] = {}
    is_erased: bool = False


class AuditReport(BaseModel):
    """The result of a check of the audit trail.

    Attributes:
        n_entries: the number of entries.
        head: the hash (hex) of the last entry. Noted elsewhere, it proves later that nothing was cut off or rewritten.
        problems: what is wrong, a sentence each.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_entries: int
    head: str
    problems: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """True if nothing is wrong."""
        return not self.problems
