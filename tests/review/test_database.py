"""URLs, drivers, locks and lost servers."""

from __future__ import annotations

import pickle
import time

import psycopg
import pytest

from aspire_guard.errors import InputError, ReviewQueueError
from aspire_guard.review import Decision, ReviewItem, ReviewQueue, Webhook

ITEM = ReviewItem(question="Who?", answer="Ada")


@pytest.mark.parametrize("url", ["postgresql+asyncpg://host/name", "sqlite+aiosqlite:///r.db"])
def test_an_unknown_driver_is_one_line(url: str) -> None:
    """The constructor names the driver that works."""
    with pytest.raises(InputError, match="expected the driver") as raised:
        ReviewQueue(url)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("setting", [{"lease": 0}, {"second_opinions": 1.5}, {"expire_after": -1}])
def test_a_setting_out_of_range_is_one_line(setting: dict[str, float]) -> None:
    """The error names the setting."""
    with pytest.raises(InputError, match=next(iter(setting))) as raised:
        ReviewQueue(**setting)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


def test_a_locked_table_is_an_error_in_time(url: str) -> None:
    """The guard goes on after the lock's time-out, and the queue works again once the lock is gone."""
    queue = ReviewQueue(url, lock_timeout=0.3)
    queue.submit(ITEM)
    other = ReviewQueue(url)
    other.list()
    with other._database.connect() as connection:
        if url.startswith("sqlite"):
            connection.execute("BEGIN IMMEDIATE")
        else:
            connection.execute("LOCK TABLE aspire_guard_reviews IN ACCESS EXCLUSIVE MODE")
        started = time.monotonic()
        with pytest.raises(ReviewQueueError, match="is not locked") as raised:
            queue.submit(ReviewItem(question="When?", answer="Noon"))
        assert raised.value.retryable
        assert time.monotonic() - started < 5
        connection.rollback()
    assert queue.submit(ITEM).status == "open"


def test_a_long_statement_is_ended(postgresql: str) -> None:
    """The server ends what takes three times as long as a lock may."""
    queue = ReviewQueue(postgresql, lock_timeout=0.1)
    with (
        pytest.raises(psycopg.errors.QueryCanceled),
        queue._database.connect() as connection,
    ):
        connection.execute("SELECT pg_sleep(20)")


def test_a_server_that_was_restarted_is_no_error(url: str) -> None:
    """Connections that the server has closed meanwhile are replaced."""
    queue = ReviewQueue(url)
    ticket = queue.submit(ITEM)
    if not url.startswith("sqlite"):
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
    assert queue.get(ticket.id) == ticket
    assert queue.decide(ticket.id, Decision(action="approve")).status == "decided"


def test_a_pickled_queue_keeps_its_settings(url: str) -> None:
    """Webhooks, shares and times arrive in the other process."""
    hook = Webhook(url="https://example.org/hook")
    queue = ReviewQueue(url, lease=7, second_opinions=1.0, webhooks=[hook])
    copy = pickle.loads(pickle.dumps(queue))
    assert copy.settings == queue.settings
    assert repr(copy) == repr(queue)
