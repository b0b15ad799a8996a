"""An evaluator whose confidence the test chooses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aspire_guard.evaluators.callable import CallableEvaluator
from aspire_guard.exchange import Exchange
from aspire_guard.verdict import Score


@dataclass(frozen=True)
class ConstantEvaluator:
    """An evaluator that gives every answer the confidence that the test has set.

    Attributes:
        confidence: the confidence of every answer, in [0, 1], or a function that returns it for an
            exchange.
        threshold: the lowest confidence of an accepted answer, in [0, 1].
        guarantee: the promise of that threshold in one sentence, or None if it makes no promise.
    """

    confidence: float | Callable[[Exchange], float]
    threshold: float = 0.5
    guarantee: str | None = None

    def score(self, exchanges: Sequence[Exchange]) -> list[Score]:
        """Score each exchange with the chosen confidence, whose logarithm is the selection score.

        Raises:
            pydantic.ValidationError: a confidence is outside [0, 1] or not a number.
        """
        return CallableEvaluator(self._get_confidence).score(exchanges)

    def _get_confidence(self, exchange: Exchange) -> float:
        if callable(self.confidence):
            return self.confidence(exchange)
        return self.confidence
