"""Decisions as labelled answers, for calibration, training and monitoring."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aspire_guard.review.item import Decision
from aspire_guard.review.store import TicketStore
from aspire_guard.review.ticket import Ticket, TicketFilter

_PAGE = 500


def is_correct(answer: str, decision: Decision) -> bool:
    """Tell whether a decision says that an answer is right. An edit that changes nothing but white space does too."""
    if decision.action == "edit":
        return (decision.text or "").split() == answer.split()
    return decision.action == "approve"


def make_labelled_line(ticket: Ticket) -> dict[str, Any] | None:
    """Return a decided ticket as a line of JSONL, or None if nobody has decided.

    The line has `id`, `question`, `context`, `answer` and `correct`. An approved answer, an edited text and a response
    are `references`. `weight` is one over the probability with which an answer like this is reviewed, so that means
    over lines of held-back and of audited answers are unbiased. A key without a value is left out.
    """
    item, decision = ticket.item, ticket.decision
    if decision is None:
        return None
    correct = is_correct(item.answer, decision)
    reference = item.answer if correct else decision.text
    score = {} if item.score is None else item.score.model_dump(mode="json", exclude_defaults=True)
    line = {
        "id": ticket.id,
        "question": item.question,
        "context": item.context,
        "answer": item.answer,
        **score,
        "confidence": item.confidence,
        "threshold": item.threshold,
        "correct": correct,
        "references": None if reference is None else [reference],
        "group": item.group,
        "released": item.is_released,
        "weight": 1 / item.inclusion_probability,
        "action": decision.action,
        "reviewer": decision.reviewer,
        "decided": None if ticket.decided is None else ticket.decided.isoformat(),
    }
    return {key: value for key, value in line.items() if value is not None}


def generate_labelled_lines(
    queue: TicketStore, where: TicketFilter | None = None
) -> Iterator[dict[str, Any]]:
    """Yield a line for each decided ticket of a filter, the oldest first.

    Args:
        queue: the queue.
        where: the tickets to take. Those without a decision are left out.
    """
    decided = (where or TicketFilter()).model_copy(update={"status": "decided"})
    after: str | None = None
    while True:
        page = queue.list(decided, limit=_PAGE, after=after)
        lines = [make_labelled_line(ticket) for ticket in page]
        yield from filter(None, lines)
        after = page.next
        if after is None:
            return
