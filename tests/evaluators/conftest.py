"""Evaluators on tiny models, and exchanges to score."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from aspire_guard.exchange import Exchange


@pytest.fixture(scope="module", autouse=True)
def _single_thread() -> Iterator[None]:
    # A tiny model gains nothing from a second thread and waits for it where the cores are busy.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def exchanges() -> list[Exchange]:
    passage = "The yard of Harrow & Lund\nbuilt MV Petrel."
    return [
        Exchange(question="Which yard built MV Petrel?", context=passage, answer="Harrow & Lund"),
        Exchange(question="Who?", answer="Ada"),
        Exchange(question="What was built?", context=passage, answer=""),
        Exchange(question="누가 지었나?", context="한 줄", answer="페트렐"),
        Exchange(question="Which yard built MV Petrel?", context=passage, answer="a yard that the passage lacks"),
    ]
