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
    """Scores with a function: a rule, a service, a model of one's own.

    Attributes:
        probability: gives the probability, in [0, 1], that an exchange's answer is right, or the probabilities of
            many exchanges where `batched`; called from several threads.
        threshold: the least confidence that should be released, in [0, 1].
        guarantee: what that threshold promises, in one sentence; None where it promises nothing.
        batched: whether the function takes a list of exchanges.
    """

    probability: Callable[..., Any]
    threshold: float = 0.5
    guarantee: str | None = None
    batched: bool = False

    def score(self, exchanges: Sequence[Exchange]) -> list[Score]:
        """One score an exchange; its selection score is the logarithm of the probability, in nats.

        Raises:
            pydantic.ValidationError: a probability is outside [0, 1] or not a number.
        """
        listed = list(exchanges)
        found = self.probability(listed) if self.batched else [self.probability(exchange) for exchange in listed]
        return [_score(float(probability)) for probability in found]


def _score(probability: float) -> Score:
    # Zero has no logarithm; the smallest float ranks just as low.
    return Score(selection_score=math.log(max(probability, sys.float_info.min)), confidence=probability)
