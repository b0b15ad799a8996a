"""Answers whose model scored itself in the pass that wrote them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import Runnable, RunnableLambda

from aspire_guard.exchange import Exchange
from aspire_guard.guard import AspireGuard
from aspire_guard.testing import ConstantEvaluator
from aspire_guard.verdict import Score

OWN = Score(selection_score=-0.5, confidence=0.875, log_likelihood=-0.25, p_correct=0.75)


@dataclass(frozen=True)
class FingerprintedEvaluator(ConstantEvaluator):
    """An evaluator that can tell whose score a message carries."""

    fingerprint: str = "evaluator-1"


class NeverAsked(FingerprintedEvaluator):
    """An evaluator that must not be asked."""

    def score(self, exchanges: Sequence[Exchange]) -> list[Score]:
        raise AssertionError("scored again")


def make_model(evaluator: str = "evaluator-1", score: Any = None) -> Runnable[Any, Any]:
    carried = {"evaluator": evaluator, "score": OWN.model_dump() if score is None else score}
    message = AIMessage("Ada\n", response_metadata={"aspire_score": carried})
    return GenericFakeChatModel(messages=iter([message] * 4))


@pytest.mark.parametrize("chain", [make_model(), make_model() | StrOutputParser() | str.strip])
def test_a_carried_score_is_used(chain: Runnable[Any, Any]) -> None:
    """The score is read from the output message, or from the model's message if a parser dropped it."""
    guard = AspireGuard(chain, evaluator=NeverAsked(0.0))
    assert guard.judge("Who?").score == OWN
    verdict = asyncio.run(guard.ajudge("Who?"))
    assert verdict.score == OWN
    assert verdict.timings.score is None


@pytest.mark.parametrize(
    "chain",
    [
        make_model(evaluator="evaluator-2"),
        make_model(score={"confidence": 0.875}),
        make_model(score={"selection_score": 0.0, "confidence": float("nan")}),
        make_model() | StrOutputParser() | RunnableLambda(lambda text: f"Bob, not {text}"),
    ],
    ids=["another evaluator's", "incomplete", "not a number", "of another text"],
)
def test_any_other_score_is_not_used(chain: Runnable[Any, Any]) -> None:
    """The evaluator is asked if the carried score can't be used."""
    assert (
        AspireGuard(chain, evaluator=FingerprintedEvaluator(0.125)).judge("Who?").confidence
        == 0.125
    )


def test_an_evaluator_without_fingerprint_is_always_asked() -> None:
    """Without a fingerprint an evaluator can't tell whose score a message carries, so it is asked."""
    assert (
        AspireGuard(make_model(), evaluator=ConstantEvaluator(0.125)).judge("Who?").confidence
        == 0.125
    )
