"""Evaluators on tiny models, and exchanges to score."""

from __future__ import annotations

import pytest

from aspire_guard.exchange import Exchange


@pytest.fixture(scope="module", autouse=True)
def _on_one_thread(single_thread: None) -> None:
    """Every module of this folder runs tiny models."""


@pytest.fixture(scope="session")
def exchanges() -> list[Exchange]:
    passage = "The yard of Harrow & Lund\nbuilt MV Petrel."
    return [
        Exchange(question="Which yard built MV Petrel?", context=passage, answer="Harrow & Lund"),
        Exchange(question="Who?", answer="Ada"),
        Exchange(question="What was built?", context=passage, answer=""),
        Exchange(question="누가 지었나?", context="한 줄", answer="페트렐"),
        Exchange(
            question="Which yard built MV Petrel?",
            context=passage,
            answer="a yard that the passage lacks",
        ),
    ]
