"""Decisions as labelled answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from aspire_guard.review import Decision, ReviewItem, ReviewQueue
from aspire_guard.review.labels import generate_labelled_lines, is_correct
from aspire_guard.verdict import Score


@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        (Decision(action="approve"), True),
        (Decision(action="reject"), False),
        (Decision(action="edit", text="Ada B."), False),
        (Decision(action="edit", text=" Ada\n"), True),
        (Decision(action="respond", text="Ask the desk."), False),
    ],
)
def test_a_decision_is_a_label(decision: Decision, expected: bool) -> None:
    """Only an approved answer is right, or one whose edit changes nothing but white space."""
    assert is_correct("Ada", decision) is expected


def test_each_decision_is_a_line(tmp_path: Path) -> None:
    """An edit is a reference, and an audited answer weighs as many as it stands for."""
    queue = ReviewQueue(f"sqlite:///{tmp_path}/reviews.db")
    score = Score(selection_score=-1.0, confidence=0.25)
    held_back = queue.submit(ReviewItem(question="Who?", answer="Ada", score=score, threshold=0.5))
    audited = queue.submit(
        ReviewItem(question="When?", answer="Noon", is_released=True, inclusion_probability=0.05)
    )
    queue.submit(ReviewItem(question="Where?", answer="Here"))
    queue.decide(held_back.id, Decision(action="edit", text="Ada B.", reviewer="bea"))
    queue.decide(audited.id, Decision(action="reject", reviewer="bea"))
    first, second = generate_labelled_lines(queue)
    assert first.pop("decided")
    assert first == {
        "id": held_back.id, "question": "Who?", "answer": "Ada", "selection_score": -1.0,
        "confidence": 0.25, "threshold": 0.5, "correct": False, "references": ["Ada B."],
        "released": False, "weight": 1.0, "action": "edit", "reviewer": "bea",
    }  # fmt: skip
    assert (second["correct"], second["weight"], second["released"]) == (False, 20.0, True)
    assert "references" not in second
