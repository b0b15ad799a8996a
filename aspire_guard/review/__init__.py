"""The review queue: answers that wait for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aspire_guard.lazy_names import load_lazily

if TYPE_CHECKING:
    from aspire_guard.review.item import Decision, ReviewItem, Ticket
    from aspire_guard.review.queue import ReviewQueue

__all__ = [
    "Decision",
    "ReviewItem",
    "ReviewQueue",
    "Ticket",
]

_MODULES = {
    "Decision": "aspire_guard.review.item",
    "ReviewItem": "aspire_guard.review.item",
    "ReviewQueue": "aspire_guard.review.queue",
    "Ticket": "aspire_guard.review.item",
}

__getattr__, __dir__ = load_lazily(__name__, _MODULES)
