"""The settings that routes refuse."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from langchain_core.runnables import RunnableLambda
from pydantic import ValidationError

from aspire_guard.routing.routes import (
    Accept,
    Band,
    Budget,
    Custom,
    Fallback,
    HumanReview,
    Timeouts,
)

LARGE: RunnableLambda[str, str] = RunnableLambda(lambda question: "Ada")


def test_routes_refuse_what_they_cannot_use() -> None:
    """Numbers out of range, unknown settings and an object that is not a queue are refused."""
    wrong: list[Callable[[], object]] = [
        lambda: Budget(hops=-1),
        lambda: Timeouts(chain=0.0),
        lambda: Timeouts(chian=1.0),  # type: ignore[call-arg]
        lambda: Fallback(LARGE, retries=-1),
        lambda: Band(1.1, Accept()),
        lambda: Custom("no function"),  # type: ignore[arg-type]
        lambda: HumanReview(42),
    ]
    for make in wrong:
        with pytest.raises(ValidationError):
            make()
