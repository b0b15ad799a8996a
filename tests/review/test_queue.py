"""The review queue, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Timer

import pytest
from sqlalchemy import create_engine, text

from aspire_guard.errors import InputError, ReviewConflictError, ReviewQueueError, ReviewSchemaError
from aspire_guard.review import Decision, ReviewItem, ReviewQueue, Ticket, TicketFilter

ITEM = ReviewItem(
    question="Who keeps the key?",
    context="Ada keeps the key.",
    answer="Ada — 阿达",
    confidence=0.25,
    reason="confidence 0.250 is below the threshold 0.500",
    group="acme",
    metadata={"channel": "mail", "tries": 2},
)
APPROVE = Decision(action="approve", reviewer="bea", comment="as the handbook says")


@pytest.fixture
def queue(url: str) -> ReviewQueue:
    return ReviewQueue(url)


def test_a_ticket_holds_what_was_submitted(queue: ReviewQueue, url: str) -> None:
    """Another process, which has its own queue on the same database, reads the same ticket."""
    before = datetime.now(UTC)
    ticket = queue.submit(ITEM)
    assert before <= ticket.created <= datetime.now(UTC)
    assert (ticket.item, ticket.status, ticket.decision, ticket.decided) == (
        ITEM,
        "open",
        None,
        None,
    )
    assert ReviewQueue(url).get(ticket.id) == ticket


def test_submitting_twice_gives_one_ticket(queue: ReviewQueue) -> None:
    """An item is the same if question, context, answer and group are the same."""
    ticket = queue.submit(ITEM)
    assert queue.submit(ITEM.model_copy(update={"confidence": 0.3})) == ticket
    other = ReviewItem(**ITEM.model_dump(exclude={"key", "group"}), group="beta")
    assert queue.submit(other).id != ticket.id
    assert len(queue.list()) == 2


def test_a_key_of_ones_own_tells_items_apart(queue: ReviewQueue) -> None:
    """The same answer under another key is reviewed again."""
    first, second = (
        ReviewItem(question="Who?", answer="Ada", key=key) for key in ("order 1", "order 2")
    )
    assert queue.submit(first).id != queue.submit(second).id
    assert queue.submit(first).id == queue.submit(first).id


@pytest.mark.parametrize(
    "decision",
    [
        APPROVE,
        Decision(action="respond", text=""),
    ],
)
def test_a_decision_stays(queue: ReviewQueue, decision: Decision) -> None:
    """The same decision again changes nothing, and another decision is refused."""
    ticket = queue.submit(ITEM)
    decided = queue.decide(ticket.id, decision)
    assert (decided.decision, decided.status) == (decision, "decided")
    assert decided.decided is not None
    assert queue.decide(ticket.id, decision) == decided
    with pytest.raises(
        ReviewConflictError, match=f"expected ticket {ticket.id} to be open, found it decided"
    ):
        queue.decide(ticket.id, Decision(action="edit", text="Bob"))
    assert queue.get(ticket.id) == decided
    delivered = queue.submit(ITEM)
    assert delivered.delivered is not None
    assert delivered == queue.get(ticket.id) == queue.submit(ITEM)
    assert delivered.model_copy(update={"delivered": None}) == decided


def test_tickets_are_listed_from_the_oldest_on(queue: ReviewQueue) -> None:
    """The list may be of all, of open or of decided tickets, and has a limit."""
    tickets = [queue.submit(ReviewItem(question=f"{number}?", answer="Ada")) for number in range(4)]
    queue.decide(tickets[1].id, APPROVE)
    ids = [ticket.id for ticket in tickets]
    assert [ticket.id for ticket in queue.list()] == ids
    assert [ticket.id for ticket in queue.list(TicketFilter(status="open"), limit=2)] == [
        ids[0],
        ids[2],
    ]
    assert [ticket.id for ticket in queue.list(TicketFilter(status="decided"))] == [ids[1]]


def test_an_unknown_ticket_is_an_error(queue: ReviewQueue) -> None:
    """Reading, deciding and waiting all refuse it."""
    for call in (
        lambda: queue.get("none"),
        lambda: queue.decide("none", APPROVE),
        lambda: queue.wait("none", timeout=1),
    ):
        with pytest.raises(ReviewConflictError, match="found none with the id 'none'"):
            call()


def test_waiting_ends_with_the_decision(queue: ReviewQueue) -> None:
    """Sync and async waiting end with the decision, or after their time without one."""
    ticket = queue.submit(ITEM)
    assert queue.wait(ticket.id, timeout=0) is None
    assert asyncio.run(queue.await_(ticket.id, timeout=0.1)) is None
    timer = Timer(0.2, queue.decide, (ticket.id, APPROVE))
    timer.start()
    assert queue.wait(ticket.id, timeout=30) == APPROVE
    timer.join()
    assert asyncio.run(queue.await_(ticket.id, timeout=0)) == APPROVE


def test_many_threads_submit_one_item_once(url: str) -> None:
    """Each thread has its own queue on a database that is still empty."""

    def submit(number: int) -> str:
        return ReviewQueue(url).submit(ITEM).id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(submit, range(16)))) == 1
    assert len(ReviewQueue(url).list()) == 1


def test_one_of_many_deciders_wins(queue: ReviewQueue) -> None:
    """The others learn that the ticket was decided otherwise."""
    ticket = queue.submit(ITEM)

    def decide(number: int) -> Ticket | None:
        try:
            return queue.decide(ticket.id, Decision(action="respond", text=str(number)))
        except ReviewConflictError:
            return None

    with ThreadPoolExecutor(8) as pool:
        won = [found for found in pool.map(decide, range(16)) if found is not None]
    assert won == [queue.get(ticket.id)]


WORKER = """
import sys
from aspire_guard.review import Decision, ReviewItem, ReviewQueue
queue = ReviewQueue(sys.argv[1])
print("ready", flush=True)
number = 0
while True:
    ticket = queue.submit(ReviewItem(question=f"{sys.argv[2]}-{number}?", answer="Ada"))
    print("submitted", ticket.id, flush=True)
    queue.decide(ticket.id, Decision(action="approve"))
    print("decided", ticket.id, flush=True)
    number += 1
"""


def test_a_killed_process_loses_nothing(url: str, tmp_path: Path) -> None:
    """Everything that a process was given is in the database after a kill, and other processes continue at once."""
    told: list[list[str]] = []
    for life in range(3):
        log = tmp_path / f"{life}.log"
        with (
            log.open("w") as out,
            subprocess.Popen([sys.executable, "-c", WORKER, url, str(life)], stdout=out) as worker,
        ):
            while log.read_text().count("decided") < 3:
                assert worker.poll() is None
                time.sleep(0.01)
            # Wherever it is by then: between two calls or inside one.
            time.sleep(0.004 * life)
            worker.kill()
        told += [line.split() for line in log.read_text().splitlines() if line != "ready"]
        ReviewQueue(url).submit(ReviewItem(question=f"after {life}?", answer="Ada"))
    tickets = {ticket.id: ticket for ticket in ReviewQueue(url).list(limit=100_000)}
    whole = [line for line in told if len(line) == 2 and len(line[1]) == 32]
    assert {ticket_id for _, ticket_id in whole} <= tickets.keys()
    assert all(
        tickets[ticket_id].status == "decided" for word, ticket_id in whole if word == "decided"
    )
    assert sum(ticket.item.question.startswith("after") for ticket in tickets.values()) == 3


def test_a_foreign_schema_is_refused(url: str) -> None:
    """A foreign table of the same name, or one of an unknown version, is left alone."""
    driver = url.replace("postgresql:", "postgresql+psycopg:")
    engine = create_engine(driver)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE aspire_guard_reviews (id INTEGER)"))
    with pytest.raises(
        ReviewSchemaError,
        match="found a table 'aspire_guard_reviews' without 'aspire_guard_schema'",
    ):
        ReviewQueue(url).list()
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE aspire_guard_reviews"))
    ReviewQueue(url).submit(ITEM)
    with engine.begin() as connection:
        connection.execute(text("UPDATE aspire_guard_review_version SET version_num = '0007'"))
    engine.dispose()
    with pytest.raises(
        ReviewSchemaError,
        match="expected version 2 of the review tables or an earlier one, found 7",
    ):
        ReviewQueue(url).list()


def test_a_database_that_is_not_there_is_a_clear_error() -> None:
    """The error holds neither the password of the URL nor the answer."""
    for url in (
        "sqlite:////no/such/folder/reviews.db",
        "postgresql://bea:secret@127.0.0.1:1/reviews",
    ):
        with pytest.raises(
            ReviewQueueError, match=r"expected the database of ReviewQueue\(.*\) to answer"
        ) as raised:
            ReviewQueue(url).submit(ITEM)
        assert raised.value.retryable
        assert "secret" not in str(raised.value)
        assert "Ada" not in str(raised.value)


@pytest.mark.parametrize("url", ["reviews.db", "mysql://host/reviews", "sqlite:///:memory:"])
def test_a_url_that_cannot_be_used_is_refused_at_once(url: str) -> None:
    """The constructor refuses it, before anything is submitted."""
    with pytest.raises(InputError, match="expected"):
        ReviewQueue(url)
