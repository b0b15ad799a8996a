"""The review queue: answers that wait for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aspire_guard.lazy_names import load_lazily

if TYPE_CHECKING:
    from aspire_guard.review.item import Decision, ReviewCandidate, ReviewItem, ReviewSource
    from aspire_guard.review.queue import ReviewQueue
    from aspire_guard.review.ticket import (
        AuditEntry,
        AuditReport,
        Claim,
        Opinion,
        Ticket,
        TicketCounts,
        TicketFilter,
        TicketPage,
    )
    from aspire_guard.review.webhooks import Webhook

__all__ = [
    "AuditEntry",
    "AuditReport",
    "Claim",
    "Decision",
    "Opinion",
    "ReviewCandidate",
    "ReviewItem",
    "ReviewQueue",
    "ReviewSource",
    "Ticket",
    "TicketCounts",
    "TicketFilter",
    "TicketPage",
    "Webhook",
]

_MODULES = {
    "AuditEntry": "aspire_guard.review.ticket",
    "AuditReport": "aspire_guard.review.ticket",
    "Claim": "aspire_guard.review.ticket",
    "Decision": "aspire_guard.review.item",
    "Opinion": "aspire_guard.review.ticket",
    "ReviewCandidate": "aspire_guard.review.item",
    "ReviewItem": "aspire_guard.review.item",
    "ReviewQueue": "aspire_guard.review.queue",
    "ReviewSource": "aspire_guard.review.item",
    "Ticket": "aspire_guard.review.ticket",
    "TicketCounts": "aspire_guard.review.ticket",
    "TicketFilter": "aspire_guard.review.ticket",
    "TicketPage": "aspire_guard.review.ticket",
    "Webhook": "aspire_guard.review.webhooks",
}

__getattr__, __dir__ = load_lazily(__name__, _MODULES)
