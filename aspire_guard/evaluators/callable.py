"""Any function as an evaluator."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aspire_guard.exchange import Exchange
from aspire_guard.verdict import Score


@dataclass(frozen=True)
class CallableEvaluator:
    """Scores answers with a function: a rule, a service, a model of your own.

    Attributes:
        probability: returns the probability, in [0, 1], that an exchange's answer is right. If
            `batched`, it takes a list of exchanges and returns one probability for each. It is
            called from several threads.
        threshold: the lowest confidence that is released, in [0, 1].
        guarantee: the promise of that threshold in one sentence, or None if it makes no promise.
        batched: tells whether the function takes a list of exchanges.
    """

    probability: Callable[..., Any]
    threshold: float = 0.5
    guarantee: str | None = None
    batched: bool = False

    def score(self, exchanges: Sequence[Exchange]) -> list[Score]:
        """Score each exchange. The selection score is the logarithm of the probability, in nats.

        Raises:
            pydantic.ValidationError: a probability is outside [0, 1] or not a number.
        """
        exchanges = list(exchanges)
        if self.batched:
            probabilities = self.probability(exchanges)
        else:
            probabilities = [self.probability(exchange) for exchange in exchanges]
        return [_to_score(float(probability)) for probability in probabilities]


def _to_score(probability: float) -> Score:
    # Zero has no logarithm. The smallest float ranks just as low.
    selection_score = math.log(max(probability, sys.float_info.min))
    return Score(selection_score=selection_score, confidence=probability)
