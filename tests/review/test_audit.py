"""The audit trail, its check, and the erasure of personal data, on SQLite and on PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from aspire_guard.errors import ReviewConflictError
from aspire_guard.review import AuditEntry, Decision, ReviewItem, ReviewQueue, TicketFilter

APPROVE = Decision(action="approve", reviewer="bea", comment="as the handbook says")
TRAIL, TICKETS = "aspire_guard_review_audit", "aspire_guard_reviews"
UNLOCK = {
    "sqlite": (f"DROP TRIGGER {TRAIL}_no_update", f"DROP TRIGGER {TRAIL}_no_delete"),
    "postgresql": (f"ALTER TABLE {TRAIL} DISABLE TRIGGER USER",),
}


def fill(queue: ReviewQueue) -> list[str]:
    """Submit three answers and decide on the first two."""
    items = [ReviewItem(question=f"{number}?", answer="Ada") for number in range(3)]
    ids = [queue.submit(item).id for item in items]
    queue.claim("bea", ids[0])
    for ticket_id in ids[:2]:
        queue.decide(ticket_id, APPROVE)
    return ids


def change(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def test_the_trail_tells_who_did_what_and_when(url: str) -> None:
    """The entries of a ticket are in order, and the whole trail is whole."""
    queue = ReviewQueue(url)
    before = datetime.now(UTC)
    ids = fill(queue)
    entries = queue.history(ids[0])
    assert [(one.event, one.actor) for one in entries] == [
        ("submitted", None), ("claimed", "bea"), ("decided", "bea"),
    ]  # fmt: skip
    assert before <= entries[0].time <= entries[-1].time <= datetime.now(UTC)
    assert entries[-1].details["action"] == "approve"
    report = queue.verify()
    assert (report.n_entries, report.problems) == (6, ())


def test_the_database_itself_refuses_changes_of_the_trail(url: str, connect: Engine) -> None:
    """Entries can neither be changed nor removed by a statement."""
    fill(ReviewQueue(url))
    for statement in (f"UPDATE {TRAIL} SET actor = 'mallory'", f"DELETE FROM {TRAIL}"):
        with pytest.raises(DBAPIError, match="append-only"):
            change(connect, statement)


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        (f"UPDATE {TRAIL} SET actor = 'cem' WHERE number = 5", "details of entry 5 were changed"),
        (f"UPDATE {TRAIL} SET event = 'undone' WHERE number = 5", "the hash of entry 5"),
        (f"DELETE FROM {TRAIL} WHERE number = 2", "entries 2 to 2 are missing"),
        (f"DELETE FROM {TRAIL} WHERE number = 6", "the trail ends at entry 5, but its head is"),
        (f"UPDATE {TRAIL} SET salt = NULL WHERE number = 3", "it was never purged"),
        (f"UPDATE {TICKETS} SET answer = 'Bob' WHERE question = '2?'", "the answer of ticket"),
        (f"UPDATE {TICKETS} SET reviewer = 'cem' WHERE question = '0?'", "the decision on ticket"),
        (f"UPDATE {TICKETS} SET action = 'reject' WHERE question = '2?'", "the decision on ticket"),
        (f"DELETE FROM {TICKETS} WHERE question = '2?'", "was removed, but it was never purged"),
    ],
)
def test_the_check_finds_what_was_changed(
    url: str, connect: Engine, statement: str, problem: str
) -> None:
    """Whoever changes the tables past the queue is found out."""
    queue = ReviewQueue(url)
    fill(queue)
    assert queue.verify().is_whole
    change(connect, *UNLOCK[connect.dialect.name], statement)
    report = queue.verify()
    assert not report.is_whole
    assert problem in " ".join(report.problems)


def test_an_earlier_head_proves_that_nothing_was_rewritten(url: str) -> None:
    """The head that somebody noted is in the trail later, and a foreign one is not."""
    queue = ReviewQueue(url)
    ids = fill(queue)
    head = queue.verify().head
    queue.decide(ids[2], APPROVE)
    assert queue.verify(head=head).is_whole
    (problem,) = queue.verify(head="0" * 64).problems
    assert problem == "the head of the earlier check is not in the trail"


def test_erasure_leaves_a_trail_that_can_be_checked(url: str, connect: Engine) -> None:
    """The words, the reviewer and the comment are gone from all tables, and the trail is whole."""
    queue = ReviewQueue(url)
    item = ReviewItem(question="Who has zanq?", answer="Ada zanq", metadata={"user": "zanq"})
    ticket = queue.submit(item)
    decision = Decision(action="edit", text="zanq", reviewer="zanq", comment="zanq")
    queue.decide(ticket.id, decision)
    fill(queue)
    assert queue.purge(ticket_ids=[ticket.id]) == 1
    assert queue.purge(ticket_ids=[ticket.id]) == 0
    with pytest.raises(ReviewConflictError):
        queue.get(ticket.id)
    with connect.connect() as connection:
        for table in (TICKETS, TRAIL, "aspire_guard_review_opinions"):
            assert "zanq" not in str(connection.execute(text(f"SELECT * FROM {table}")).all())
    assert [(one.event, one.is_erased) for one in queue.history(ticket.id)] == [
        ("submitted", True), ("decided", True), ("purged", False),
    ]  # fmt: skip
    assert queue.verify().is_whole
    assert queue.submit(item).id != ticket.id


def test_old_tickets_are_erased_and_open_ones_stay(url: str) -> None:
    """Only closed tickets of the filter go. An open one goes if it is named."""
    queue = ReviewQueue(url)
    ids = fill(queue)
    assert queue.purge(TicketFilter(created_before=queue.get(ids[1]).created)) == 1
    assert queue.purge() == 1
    assert [ticket.id for ticket in queue.list()] == [ids[2]]
    assert queue.purge(ticket_ids=ids) == 1
    assert queue.verify().is_whole


def test_erased_words_are_not_in_the_files(tmp_path: Path) -> None:
    """SQLite overwrites what was deleted, and the write-ahead log is emptied."""
    queue = ReviewQueue(f"sqlite:///{tmp_path}/reviews.db")
    ticket = queue.submit(ReviewItem(question="Who?", answer="zanq" * 10_000))
    queue.purge(ticket_ids=[ticket.id])
    files = list(tmp_path.glob("reviews.db*"))
    assert files
    assert not any(b"zanq" in file.read_bytes() for file in files)


def test_events_come_as_they_happen(url: str) -> None:
    """A reader sees all that comes after the entry that it knows, from whatever process."""
    queue = ReviewQueue(url)
    ids = fill(queue)
    seen: list[AuditEntry] = []
    for entry in queue.events(after=4, timeout=30):
        seen.append(entry)
        if entry.number == 6:
            ReviewQueue(url).decide(ids[2], APPROVE)
        if entry.number == 7:
            break
    assert [(one.number, one.event) for one in seen] == [
        (5, "decided"), (6, "decided"), (7, "decided"),
    ]  # fmt: skip
    assert seen[-1].ticket == ids[2]
    assert list(queue.events(timeout=0)) == []
