"""A test double: an evaluator that needs no model."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aspire_guard.exchange import Exchange
from aspire_guard.verdict import Score


@dataclass(frozen=True)
class ConstantEvaluator:
    """Gives the confidence it was told to; for tests of chains that are guarded.

    Attributes:
        confidence: the confidence of every answer, in [0, 1], or a function that gives it for an exchange.
        threshold: the least confidence that should be released, in [0, 1].
        guarantee: what that threshold promises, in one sentence; None where it promises nothing.
    """

    confidence: float | Callable[[Exchange], float]
    threshold: float = 0.5
    guarantee: str | None = None

    def score(self, exchanges: Sequence[Exchange]) -> list[Score]:
        """One score an exchange; its selection score is the logarithm of the confidence, in nats.

        Raises:
            pydantic.ValidationError: a confidence is outside [0, 1] or not a number.
        """
        return [self._score(exchange) for exchange in exchanges]

    def _score(self, exchange: Exchange) -> Score:
        confidence = self.confidence(exchange) if callable(self.confidence) else self.confidence
        # Zero has no logarithm; the smallest float ranks just as low.
        return Score(selection_score=math.log(max(confidence, sys.float_info.min)), confidence=confidence)
