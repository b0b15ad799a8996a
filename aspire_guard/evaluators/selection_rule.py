"""The selection score of a foreign model's answers: a small monotone combination of named signals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from aspire_guard.evaluators.signals import SUPPORT

SignalName = Literal[
    "log_likelihood", "log_p_correct", "claims_correct", "support", "explained", "lead"
]
AnswerKind = Literal["over_context", "closed_book"]


class _FrozenModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SignalWeights(_FrozenModel):
    """The score of one kind of answers: the log-odds of being right, linear in the signals.

    Attributes:
        weights: the weight of each signal. No weight is negative, so a better signal never lowers the score.
        intercept: the score if every signal is 0.
    """

    weights: dict[SignalName, Annotated[FiniteFloat, Field(ge=0)]]
    intercept: FiniteFloat

    def score(self, signals: Mapping[str, float]) -> float:
        """Return the log-odds that an answer with these signals is right, before calibration."""
        terms = (weight * signals[name] for name, weight in self.weights.items())
        return self.intercept + sum(terms)


class SelectionRule(_FrozenModel):
    """The combination of signals for each kind of answers.

    Attributes:
        over_context: for answers over a context.
        closed_book: for answers without a context.
    """

    over_context: SignalWeights
    closed_book: SignalWeights

    def score(self, signals: Mapping[str, float]) -> float:
        """Return the log-odds that an answer is right, before calibration."""
        weights = self.over_context if find_kind(signals) == "over_context" else self.closed_book
        return weights.score(signals)


def find_kind(signals: Mapping[str, float]) -> AnswerKind:
    """Tell the kind of an answer by its signals, some of which compare it with its context."""
    return "over_context" if SUPPORT in signals else "closed_book"
