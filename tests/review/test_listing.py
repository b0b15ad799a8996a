"""Lists, filters and counts, and rows that can't be read, on SQLite and on PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from aspire_guard.errors import DamagedTicketError, InputError
from aspire_guard.review import Decision, ReviewItem, ReviewQueue, TicketFilter

APPROVE = Decision(action="approve", reviewer="bea")


@pytest.fixture
def queue(url: str) -> ReviewQueue:
    """A queue of five tickets with the questions 0 to 4 and the confidences 0.0 to 0.4."""
    queue = ReviewQueue(url)
    for number in range(5):
        queue.submit(
            ReviewItem(
                question=f"{number}: WAS IST DIE STRASSE 100%?",
                answer="Über_all",
                confidence=number / 10,
                group="acme" if number % 2 else "beta",
                is_released=number == 4,
            )
        )
    return queue


def find(queue: ReviewQueue, **fields: Any) -> list[int]:
    """Return the numbers of the tickets of a filter."""
    page = queue.list(TicketFilter(**fields))
    assert page.total == len(page)
    return [int(ticket.item.question[0]) for ticket in page]


def test_pages_follow_each_other(queue: ReviewQueue) -> None:
    """Each page says how many tickets there are, and where the next one begins, in both orders."""
    for order, expected in (("oldest", [0, 1, 2, 3, 4]), ("newest", [4, 3, 2, 1, 0])):
        seen: list[int] = []
        after: str | None = None
        for size in (2, 2, 1):
            page = queue.list(order=order, limit=2, after=after)  # type: ignore[arg-type]
            assert (len(page), page.total) == (size, 5)
            seen += [int(ticket.item.question[0]) for ticket in page]
            after = page.next
        assert after is None
        assert seen == expected
    with pytest.raises(InputError, match="expected the place of a page, found 'nonsense'"):
        queue.list(after="nonsense")


def test_filters_can_be_combined(queue: ReviewQueue) -> None:
    """Each field narrows the list down."""
    tickets = list(queue.list())
    queue.decide(tickets[1].id, APPROVE)
    queue.claim("cem", tickets[3].id)
    assert find(queue, group="acme") == [1, 3]
    assert find(queue, min_confidence=0.1, max_confidence=0.3) == [1, 2, 3]
    assert find(queue, status="open", group="acme") == [3]
    assert find(queue, reviewer="bea") == [1]
    assert find(queue, reviewer="cem") == find(queue, is_claimed=True) == [3]
    assert find(queue, is_released=True) == [4]
    created = tickets[2].created.astimezone(UTC) + timedelta(0)
    assert find(queue, created_before=created) == [0, 1]
    assert find(queue, created_after=created) == [2, 3, 4]
    assert find(queue, has_thread=True) == find(queue, is_delivered=True) == []


@pytest.mark.parametrize("needle", ["was ist die straße", "über_ALL", "100%"])
def test_the_text_filter_ignores_case_in_all_languages(queue: ReviewQueue, needle: str) -> None:
    """Wildcards of SQL have no meaning."""
    assert find(queue, text=needle) == [0, 1, 2, 3, 4]
    assert find(queue, text=f"2: {needle[:3]}") in ([2], [])
    assert find(queue, text="1%0") == find(queue, text="_ber") == []


def test_counts_go_by_state(queue: ReviewQueue) -> None:
    """The oldest open ticket tells how long the longest has waited."""
    tickets = list(queue.list())
    queue.decide(tickets[0].id, APPROVE)
    queue.withdraw(tickets[1].id)
    queue.claim("cem", tickets[3].id)
    counts = queue.count()
    assert (counts.open, counts.claimed, counts.decided, counts.withdrawn) == (3, 1, 1, 1)
    assert counts.oldest_open == tickets[2].created
    assert queue.count(TicketFilter(group="beta")).open == 2
    assert queue.count(TicketFilter(group="nobody")).oldest_open is None


@pytest.mark.parametrize(
    "damage",
    ["metadata = '{'", "action = 'maybe'", "details = '[]'", "confidence = 7", "status = 'lost'"],
)
def test_a_damaged_row_spoils_no_list(queue: ReviewQueue, connect: Engine, damage: str) -> None:
    """The list names it, claims pass it over, and reading it alone is a clear error."""
    first = queue.list()[0].id
    with connect.begin() as connection:
        statement = f"UPDATE aspire_guard_reviews SET {damage} WHERE id = '{first}'"
        connection.execute(text(statement))
    page = queue.list()
    assert (len(page), page.total, page.damaged) == (4, 5, (first,))
    claimed = queue.claim("bea")
    assert claimed is not None
    assert claimed.item.question[0] == "1"
    with pytest.raises(DamagedTicketError, match=f"expected ticket {first} to be readable"):
        queue.get(first)
    assert queue.purge(ticket_ids=[first]) == 1


@pytest.mark.parametrize("damage", ["answer = CAST(x'ff' AS TEXT)", "decided = 'yesterday'"])
def test_bytes_that_sqlite_lets_through_spoil_no_list(tmp_path: object, damage: str) -> None:
    """Text that is no UTF-8, and a time that is no time, damage their own row only."""
    queue = ReviewQueue(f"sqlite:///{tmp_path}/reviews.db")
    ids = [queue.submit(ReviewItem(question=f"{n}?", answer="Ada")).id for n in range(3)]
    with queue._database.connect() as connection:
        connection.execute(f"UPDATE aspire_guard_reviews SET {damage} WHERE id = '{ids[1]}'")
    page = queue.list()
    assert ([ticket.id for ticket in page], page.damaged) == ([ids[0], ids[2]], (ids[1],))


def test_a_filter_refuses_times_without_a_zone() -> None:
    """A time without a zone could mean any hour."""
    with pytest.raises(ValueError, match="timezone"):
        TicketFilter(created_after=datetime(2030, 1, 1))
