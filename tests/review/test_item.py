"""Items and decisions."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from aspire_guard.review.item import Decision, ReviewItem


def test_the_key_is_a_digest_of_what_is_judged() -> None:
    """The fields are kept apart, so that the same text split otherwise has another key."""
    first = ReviewItem(question="a", context="b", answer="c")
    same = ReviewItem(question="a", context="b", answer="c", confidence=0.5, reason="low")
    assert same.key == first.key
    shifted = ReviewItem(question="a", context="bc", answer="")
    without_context = ReviewItem(question="a", answer="c")
    assert len({first.key, shifted.key, without_context.key}) == 3
    assert ReviewItem(question="a", answer="c", key="mine").key == "mine"


@pytest.mark.parametrize("wrong", [{"action": "edit"}, {"action": "approve", "text": "Ada"}])
def test_a_decision_has_a_text_if_it_needs_one(wrong: dict[str, Any]) -> None:
    """Edit and respond have a text, approve and reject don't."""
    with pytest.raises(ValidationError):
        Decision(**wrong)


def test_a_policy_without_a_queue_brings_no_database() -> None:
    """Neither a policy, nor the guard, nor the items import SQLAlchemy."""
    code = (
        "import sys; from aspire_guard import AspireGuard, RoutingPolicy; RoutingPolicy();"
        "from aspire_guard.review import ReviewItem; print('sqlalchemy' in sys.modules)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert shown == "False\n"
