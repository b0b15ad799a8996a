"""The selection score of a foreign model's answers: a small monotone combination of named signals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from aspire_guard.evaluators.signals import SUPPORT

SignalName = Literal["log_likelihood", "log_p_correct", "support", "pairs", "explained", "lead"]
AnswerKind = Literal["phrase", "statement", "closed_book"]

_LONGEST_PHRASE = 6


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
        phrase: for answers of at most six words. It weighs the two parts of the paper's g alone.
        statement: for longer answers over a context.
        closed_book: for longer answers without a context.
    """

    phrase: SignalWeights
    statement: SignalWeights
    closed_book: SignalWeights

    def score(self, signals: Mapping[str, float], answer: str) -> float:
        """Return the log-odds that an answer in plain text is right, before calibration."""
        weights: SignalWeights = getattr(self, find_kind(signals, answer))
        return weights.score(signals)


def find_kind(signals: Mapping[str, float], answer: str) -> AnswerKind:
    """Tell the kind of an answer by its signals, which compare it with its context, and by its plain text."""
    if is_phrase(answer):
        return "phrase"
    return "statement" if SUPPORT in signals else "closed_book"


def is_phrase(answer: str) -> bool:
    """Tell whether an answer in plain text is only a few words long."""
    return len(answer.split()) <= _LONGEST_PHRASE
