"""The review queue under kills, with a small load."""

from __future__ import annotations

from pathlib import Path

from review_queue import Load, fill, measure_pages, run_with_kills

from aspire_guard.review import ReviewQueue, TicketFilter


def test_kills_lose_no_ticket_and_decide_none_twice(tmp_path: Path) -> None:
    """Three writers and three reviewers are killed at random moments, and the audit trail is whole."""
    url = f"sqlite:///{tmp_path}/reviews.db"
    load = Load(url, n_tickets=60, n_writers=3, n_reviewers=3, pause=0.15, folder=tmp_path)
    outcome = run_with_kills(load)
    assert outcome.n_kills > 0
    assert (outcome.n_submitted, outcome.n_lost) == (60, 0)
    assert (outcome.n_decided, outcome.n_decided_twice) == (60, 0)
    assert outcome.report.problems == ()


def test_the_pages_are_measured_over_real_tickets(tmp_path: Path) -> None:
    """Half of the tickets are open, and each filter has a figure."""
    queue = ReviewQueue(f"sqlite:///{tmp_path}/reviews.db")
    fill(queue, 2_000)
    assert queue.count(TicketFilter(status="open")).open == 1_000
    figures = measure_pages(queue, 2)
    assert len(figures) == 6
    assert min(figures.values()) > 0
