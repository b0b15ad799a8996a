"""Claims, decisions, second opinions and undo, on SQLite and on PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from aspire_guard.errors import ReviewConflictError
from aspire_guard.review import Decision, ReviewItem, ReviewQueue, TicketFilter

APPROVE = Decision(action="approve", reviewer="bea")
REJECT = Decision(action="reject", reviewer="cem")


def submit(queue: ReviewQueue, count: int) -> list[str]:
    items = [ReviewItem(question=f"{number}?", answer="Ada") for number in range(count)]
    return [queue.submit(item).id for item in items]


def test_no_two_reviewers_claim_one_ticket(url: str) -> None:
    """Eight reviewers at once get eight different tickets, and the ninth claim gets none."""
    queue = ReviewQueue(url)
    ids = submit(queue, 8)
    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(queue.claim, [f"reviewer {number}" for number in range(8)]))
    assert sorted(ticket.id for ticket in claimed if ticket is not None) == sorted(ids)
    assert queue.claim("late") is None
    assert queue.count().claimed == queue.count().open == 8


def test_a_claim_keeps_others_out(url: str) -> None:
    """Only its holder can decide, extend the claim or give it back."""
    queue = ReviewQueue(url)
    (ticket_id,) = submit(queue, 1)
    ticket = queue.claim("bea")
    assert ticket is not None
    assert ticket.claim is not None
    assert (ticket.id, ticket.claim.reviewer) == (ticket_id, "bea")
    calls: list[Callable[[], object]] = [
        lambda: queue.decide(ticket_id, REJECT),
        lambda: queue.decide(ticket_id, Decision(action="reject")),
        lambda: queue.claim("cem", ticket_id),
    ]
    for call in calls:
        with pytest.raises(ReviewConflictError, match="found it claimed by 'bea'"):
            call()
    assert queue.release(ticket_id, "cem").claim == ticket.claim
    extended = queue.claim("bea", ticket_id)
    assert extended is not None
    assert extended.claim is not None
    assert extended.claim.until > ticket.claim.until
    assert queue.release(ticket_id, "bea").claim is None
    assert queue.decide(ticket_id, REJECT).decision == REJECT


def test_a_claim_ends_with_its_lease(url: str) -> None:
    """A reviewer who vanishes blocks a ticket for the seconds of the lease."""
    queue = ReviewQueue(url, lease=0.2)
    (ticket_id,) = submit(queue, 1)
    assert queue.claim("bea") is not None
    time.sleep(0.25)
    assert queue.get(ticket_id).claim is None
    assert queue.list(TicketFilter(is_claimed=False)).total == 1
    ticket = queue.claim("cem")
    assert ticket is not None
    assert ticket.id == ticket_id


def test_claims_follow_a_filter(url: str) -> None:
    """The oldest ticket of the filter is claimed."""
    queue = ReviewQueue(url)
    for group in ("acme", "beta"):
        queue.submit(ReviewItem(question="Who?", answer="Ada", group=group))
    ticket = queue.claim("bea", where=TicketFilter(group="beta"))
    assert ticket is not None
    assert ticket.item.group == "beta"


def test_two_who_agree_settle_a_ticket(url: str) -> None:
    """The first decision leaves the ticket open, and the same reviewer can't give the second one."""
    queue = ReviewQueue(url, second_opinions=1.0)
    (ticket_id,) = submit(queue, 1)
    first = queue.decide(ticket_id, APPROVE)
    assert (first.status, first.n_opinions, first.decision) == ("open", 1, None)
    assert queue.decide(ticket_id, APPROVE) == first
    assert queue.claim("bea") is None
    for reviewer in ("bea", None):
        with pytest.raises(ReviewConflictError, match="expected another reviewer"):
            queue.decide(ticket_id, Decision(action="reject", reviewer=reviewer))
    assert queue.wait(ticket_id, timeout=0) is None
    agreed = Decision(action="approve", reviewer="cem")
    settled = queue.decide(ticket_id, agreed)
    assert (settled.status, settled.n_opinions, settled.decision) == ("decided", 2, agreed)
    assert [opinion.decision for opinion in queue.opinions(ticket_id)] == [APPROVE, agreed]


def test_a_third_reviewer_settles_a_disagreement(url: str) -> None:
    """The third decision stands, whichever it is."""
    queue = ReviewQueue(url, second_opinions=1.0)
    (ticket_id,) = submit(queue, 1)
    queue.decide(ticket_id, APPROVE)
    assert queue.decide(ticket_id, REJECT).status == "open"
    last = Decision(action="edit", text="Bob", reviewer="dan")
    assert queue.decide(ticket_id, last).decision == last


def test_a_share_of_the_tickets_gets_a_second_reviewer(tmp_path: object) -> None:
    """A quarter of 400 tickets is drawn, within four standard deviations."""
    queue = ReviewQueue(f"sqlite:///{tmp_path}/reviews.db", second_opinions=0.25)
    submit(queue, 400)
    drawn = sum(ticket.needs_second_opinion for ticket in queue.list(limit=400))
    assert 65 <= drawn <= 135


def test_a_decision_can_be_taken_back(url: str) -> None:
    """The ticket is the reviewer's again, and only the new decision counts."""
    queue = ReviewQueue(url)
    (ticket_id,) = submit(queue, 1)
    queue.decide(ticket_id, APPROVE)
    with pytest.raises(ReviewConflictError, match="by 'cem', found none"):
        queue.undo(ticket_id, "cem")
    ticket = queue.undo(ticket_id, "bea")
    assert (ticket.status, ticket.decision, ticket.n_opinions) == ("open", None, 0)
    assert ticket.claim is not None
    with pytest.raises(ReviewConflictError, match="found none"):
        queue.undo(ticket_id, "bea")
    edit = Decision(action="edit", text="Ada B.", reviewer="bea")
    assert queue.decide(ticket_id, edit).decision == edit
    numbers = [(one.number, one.undone is None) for one in queue.opinions(ticket_id)]
    assert numbers == [(1, False), (2, True)]
    assert queue.verify().is_whole


def test_a_delivered_or_old_decision_stands(url: str) -> None:
    """Nobody can take back what the application was given, or what is older than the set time."""
    queue = ReviewQueue(url)
    first, second = submit(queue, 2)
    queue.decide(first, APPROVE)
    assert queue.wait(first, timeout=0) == APPROVE
    with pytest.raises(ReviewConflictError, match="found it delivered"):
        queue.undo(first, "bea")
    strict = ReviewQueue(url, undo_within=0)
    strict.decide(second, APPROVE)
    with pytest.raises(ReviewConflictError, match="expected a decision of the last 0 s"):
        strict.undo(second, "bea")
