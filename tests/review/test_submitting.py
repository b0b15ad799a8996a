"""Submission, withdrawal and expiry, on SQLite and on PostgreSQL."""

from __future__ import annotations

import multiprocessing
import os
import time
from threading import Timer
from typing import Any

import pytest

from aspire_guard.errors import ReviewConflictError
from aspire_guard.review import (
    Decision,
    ReviewCandidate,
    ReviewItem,
    ReviewQueue,
    ReviewSource,
    Ticket,
    TicketFilter,
)
from aspire_guard.verdict import Score, SentenceScore, Step

ITEM = ReviewItem(question="Who?", answer="Ada")
SCORE = Score(
    selection_score=-1.0,
    confidence=0.25,
    sentences=(SentenceScore(start=0, end=3, confidence=0.25),),
)


def test_everything_about_an_item_is_kept(url: str) -> None:
    """The score with its sentences, the candidates, the sources and the steps come back as they were."""
    item = ReviewItem(
        question="Who?",
        context="Ada keeps the key.",
        answer="Bob",
        metadata={"channel": "mail"},
        threshold=0.5,
        score=SCORE,
        candidates=(ReviewCandidate(route="chain", answer="Bob", score=SCORE),),
        sources=(ReviewSource(text="Ada keeps the key.", name="keys.md"),),
        context_source="retriever",
        steps=(Step(route="chain", confidence=0.25, seconds=0.5),),
        trace_id="run 1",
        thread_id="thread 1",
        is_released=True,
        inclusion_probability=0.05,
    )
    assert item.confidence == 0.25
    queue = ReviewQueue(url)
    assert queue.submit(item).item == queue.list()[0].item == item


@pytest.mark.parametrize("text", ["a\x00b", "lone \ud800", "\ufdd0", "\ufdd00041 שלום \u202e"])
def test_any_text_is_kept(url: str, text: str) -> None:
    """NUL, lone surrogates and all else come back as they were, in every field, and can be searched for."""
    queue = ReviewQueue(url)
    item = ReviewItem(
        question=text, context=text, answer=text, reason=text, group=text, key=ascii(text),
        metadata={text: text}, sources=(ReviewSource(text=text, name=text),),
    )  # fmt: skip
    ticket = queue.submit(item)
    assert queue.get(ticket.id).item == item
    decision = Decision(action="edit", text=text, reviewer=text, comment=text)
    assert queue.decide(ticket.id, decision).decision == decision
    where = TicketFilter(group=text, reviewer=text, text=text)
    assert [found.id for found in queue.list(where)] == [ticket.id]
    assert queue.verify().is_whole
    for unknown in (text, f"{ticket.id}\x00"):
        with pytest.raises(ReviewConflictError, match="found none with the id"):
            queue.get(unknown)


def test_a_withdrawn_ticket_ends_the_waiting(url: str) -> None:
    """Nobody can decide on it any more, until the answer is submitted again."""
    queue = ReviewQueue(url)
    ticket = queue.submit(ITEM)
    timer = Timer(0.2, queue.withdraw, (ticket.id,))
    timer.start()
    started = time.monotonic()
    assert queue.wait(ticket.id, timeout=30) is None
    # The look from time to time would come after five seconds.
    assert time.monotonic() - started < 4
    timer.join()
    assert queue.withdraw(ticket.id).status == "withdrawn"
    with pytest.raises(ReviewConflictError, match="found it withdrawn"):
        queue.decide(ticket.id, Decision(action="approve"))
    assert (queue.submit(ITEM).id, queue.get(ticket.id).status) == (ticket.id, "open")
    queue.decide(ticket.id, Decision(action="approve"))
    with pytest.raises(ReviewConflictError, match="found it decided"):
        queue.withdraw(ticket.id)


def test_an_overdue_ticket_expires(url: str) -> None:
    """Waiting ends then, nobody can decide any more, and a new submission opens the ticket again."""
    queue = ReviewQueue(url, expire_after=0.4)
    ticket = queue.submit(ITEM)
    assert queue.wait(ticket.id, timeout=30) is None
    assert queue.get(ticket.id).status == "expired"
    assert queue.count().expired == queue.list(TicketFilter(status="expired")).total == 1
    assert queue.list(TicketFilter(status="open")).total == 0
    with pytest.raises(ReviewConflictError, match="found it expired"):
        queue.decide(ticket.id, Decision(action="approve"))
    assert queue.submit(ITEM).status == "open"
    assert [entry.event for entry in queue.history(ticket.id)] == [
        "submitted",
        "expired",
        "reopened",
    ]


def test_expiry_needs_no_one_who_waits(url: str) -> None:
    """`expire` closes what is due, and only that."""
    ReviewQueue(url).submit(ITEM)
    queue = ReviewQueue(url, expire_after=0.05)
    due = queue.submit(ReviewItem(question="When?", answer="Ada"))
    time.sleep(0.1)
    assert [ticket.id for ticket in queue.expire()] == [due.id]
    assert queue.expire() == ()


def test_listeners_are_told_after_the_commit(url: str) -> None:
    """An error of a listener changes nothing. A second submission and the same decision again tell nobody."""
    submitted: list[str] = []
    decided: list[Ticket] = []

    def note(ticket: Ticket) -> None:
        submitted.append(ReviewQueue(url).get(ticket.id).status)
        raise RuntimeError("the listener's own")

    queue = ReviewQueue(url, on_submit=note, on_decision=decided.append)
    ticket = queue.submit(ITEM)
    queue.submit(ITEM)
    decision = Decision(action="approve", reviewer="bea")
    for _ in range(2):
        queue.decide(ticket.id, decision)
    assert submitted == ["open"]
    assert [one.decision for one in decided] == [decision]


def _submit_in_child(queue: ReviewQueue, number: int) -> None:
    queue.submit(ReviewItem(question=f"child {number}?", answer="Ada"))
    assert queue.wait(queue.list()[0].id, timeout=0) is None


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_share_the_queue_however_they_start(url: str, method: str) -> None:
    """A child uses the queue of its parent, whose connections are open and whose watch is running."""
    queue = ReviewQueue(url)
    ticket = queue.submit(ITEM)
    timer = Timer(0.3, queue.wait, (ticket.id, 1.0))
    timer.start()
    context: Any = multiprocessing.get_context(method)
    children = [context.Process(target=_submit_in_child, args=(queue, n)) for n in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    timer.join()
    assert [child.exitcode for child in children] == [0, 0]
    assert queue.list().total == 3
    assert queue.verify().is_whole


def test_a_replaced_file_is_a_new_queue(tmp_path: object) -> None:
    """Nothing is written to a file that was removed under an open connection."""
    path = f"{tmp_path}/reviews.db"
    queue = ReviewQueue(f"sqlite:///{path}")
    queue.submit(ITEM)
    for suffix in ("", "-wal", "-shm"):
        if os.path.exists(path + suffix):
            os.remove(path + suffix)
    ticket = queue.submit(ITEM)
    assert ReviewQueue(f"sqlite:///{path}").get(ticket.id) == ticket
