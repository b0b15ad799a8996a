"""Scoring that gives a result for every exchange, whatever the evaluator does."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from aspire_guard.errors import EvaluationError
from aspire_guard.exchange import Exchange
from aspire_guard.routing.scoring import score_exchanges
from aspire_guard.verdict import Score


class FixedEvaluator:
    """An evaluator that raises the given error, or returns the given scores."""

    threshold = 0.5
    guarantee = None

    def __init__(self, scores: list[Score] | Exception) -> None:
        self.scores = scores

    def score(self, exchanges: Sequence[Exchange]) -> list[Score]:
        if isinstance(self.scores, Exception):
            raise self.scores
        return self.scores


SCORE = Score(selection_score=0.0, confidence=1.0)
ADA = Exchange(question="Who?", answer="Ada, I think")


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (
            RuntimeError("no memory"),
            "expected a score; the evaluator raised RuntimeError: no memory",
        ),
        (RuntimeError("can't read 'ADA'"), "expected a score; the evaluator raised RuntimeError"),
        (EvaluationError("timed out after 3 s"), "timed out after 3 s"),
        (
            EvaluationError("can't read 'Ada'"),
            "expected a score; the evaluator raised EvaluationError",
        ),
        (
            EvaluationError("can't read '...ink'; tokens: thin, k"),
            "expected a score; the evaluator raised EvaluationError",
        ),
        ([], "expected one score per exchange, 1 in all; the evaluator gave 0; fix it"),
        (
            [Score.model_construct(selection_score=0.0, confidence=float("nan"))],
            "expected a confidence in [0, 1] and a selection score; found nan and 0.0; fix the evaluator",
        ),
        (
            [Score.model_construct(selection_score=float("nan"), confidence=0.5)],
            "expected a confidence in [0, 1] and a selection score; found 0.5 and nan; fix the evaluator",
        ),
    ],
)
def test_every_failure_of_an_evaluator_is_explained(
    scores: list[Score] | Exception, message: str
) -> None:
    """The evaluator's own words are left out if they may quote the answer: a short word, or four letters in a row."""
    (result,) = score_exchanges(FixedEvaluator(scores), [ADA])
    assert result.score is None
    assert str(result.error) == message


def test_words_beyond_ascii_are_not_repeated() -> None:
    """An escaped or shortened quotation can't be recognised, so the evaluator's message is dropped."""
    (result,) = score_exchanges(
        FixedEvaluator(RuntimeError(ascii("北京"))), [Exchange(question="哪里", answer="北京市")]
    )
    assert str(result.error) == "expected a score; the evaluator raised RuntimeError"


def test_one_nan_fails_its_own_exchange_only() -> None:
    """The rest of the batch keeps its scores."""
    results = score_exchanges(
        FixedEvaluator(
            [SCORE, Score.model_construct(selection_score=0.0, confidence=float("nan"))]
        ),
        [ADA, ADA],
    )
    assert [result.score for result in results] == [SCORE, None]
