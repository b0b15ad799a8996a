"""Any function as an evaluator."""

from __future__ import annotations

import math
import sys

import pytest
from pydantic import ValidationError

from aspire_guard.evaluators.callable import CallableEvaluator
from aspire_guard.evaluators.protocol import Evaluator
from aspire_guard.exchange import Exchange
from aspire_guard.guard import AspireGuard

ADA, BOB = (Exchange(question="Who?", answer=name) for name in ("Ada", "Bob"))


def test_a_function_is_an_evaluator() -> None:
    """The function's probability is the confidence, and its logarithm ranks the answers."""
    evaluator = CallableEvaluator(lambda exchange: 0.75 if exchange.answer == "Ada" else 0.0)
    assert isinstance(evaluator, Evaluator)
    ada, bob = evaluator.score([ADA, BOB])
    assert (ada.confidence, ada.selection_score) == (0.75, math.log(0.75))
    assert (bob.confidence, bob.selection_score) == (0.0, math.log(sys.float_info.min))
    assert AspireGuard(lambda question: "Ada", evaluator=evaluator).invoke("Who?") == "Ada"


def test_a_function_of_many_exchanges_is_called_once() -> None:
    """With batched=True the function is given all exchanges at once."""
    sizes: list[int] = []

    def half(exchanges: list[Exchange]) -> list[float]:
        sizes.append(len(exchanges))
        return [0.5] * len(exchanges)

    assert [
        score.confidence for score in CallableEvaluator(half, batched=True).score([ADA, BOB])
    ] == [0.5, 0.5]
    assert sizes == [2]


def test_a_number_that_is_not_a_probability_is_an_error() -> None:
    """A raw score of unknown sign must not be taken for a confidence."""
    with pytest.raises(ValidationError):
        CallableEvaluator(lambda exchange: -1.3).score([ADA])
