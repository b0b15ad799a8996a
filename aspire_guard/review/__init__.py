"""The review queue: answers that wait for a person."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aspire_guard.review.item import Decision, ReviewItem, Ticket
    from aspire_guard.review.queue import ReviewQueue

__all__ = ["Decision", "ReviewItem", "ReviewQueue", "Ticket"]


def __getattr__(name: str) -> Any:
    # On first use: the queue brings SQLAlchemy, which the items do not need.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{'queue' if name == 'ReviewQueue' else 'item'}"), name)
