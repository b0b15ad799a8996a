"""An evaluator whose confidence the test chooses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aspire_guard.evaluators.callable import CallableEvaluator
from aspire_guard.exchange import Exchange
from aspire_guard.verdict import Score


@dataclass(frozen=True)
class ConstantEvaluator:
    """Gives every answer the confidence it was told to give.

    Attributes:
        confidence: the confidence of every answer, in [0, 1], or a function that returns it for an
            exchange.
        threshold: the least confidence that is released, in [0, 1].
        guarantee: the promise of that threshold in one sentence, if it makes one.
    """

    confidence: float | Callable[[Exchange], float]
    threshold: float = 0.5
    guarantee: str | None = None

    def score(self, exchanges: Sequence[Exchange]) -> list[Score]:
        """Score each exchange with the chosen confidence; the selection score is its logarithm.

        Raises:
            pydantic.ValidationError: a confidence is outside [0, 1] or not a number.
        """
        return CallableEvaluator(self._confidence_of).score(exchanges)

    def _confidence_of(self, exchange: Exchange) -> float:
        return self.confidence(exchange) if callable(self.confidence) else self.confidence
