"""One tiny model of each architecture."""

from __future__ import annotations

import pytest

from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.language_model import LanguageModel
from aspire_guard.testing import Family, tiny_evaluator


@pytest.fixture(scope="module", autouse=True)
def _on_one_thread(single_thread: None) -> None:
    """Every module of this folder runs tiny models."""


@pytest.fixture(scope="session")
def aspire(family: Family) -> AspireLM:
    return tiny_evaluator(family).aspire


@pytest.fixture(scope="session")
def lm(aspire: AspireLM) -> LanguageModel:
    return aspire.lm
