"""The domain of a calibration: which answers a confidence may speak about."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, FiniteFloat

Statistic = Literal["words", "letters_per_word", "different_words", "latin_letters"]

_MOST_OUTSIDE = 0.005


class Range(BaseModel):
    """The smallest and the largest usual value of a statistic."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: FiniteFloat
    high: FiniteFloat


class AnswerDomain(BaseModel):
    """The usual range of simple statistics of an answer's plain text.

    Attributes:
        ranges: the range of each statistic: the number of words, the letters per word, the share of different words
            among the first 200, and the share of Latin letters among the letters.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ranges: dict[Statistic, Range]

    def contains(self, answer: str) -> bool:
        """Tell whether all statistics of an answer are in their ranges. An answer without words is outside."""
        values = measure_answer(answer)
        if values is None:
            return False
        return all(usual.low <= values[name] <= usual.high for name, usual in self.ranges.items())


def fit_domain(answers: Iterable[str]) -> AnswerDomain:
    """Fit the ranges so that at most 0.5 % of the answers lie outside, and widen them.

    The answers are plain texts. A count may be twice as large as its usual values, or as small as 1. A share may be
    smaller by 0.1, or as large as 1.
    """
    rows = [values for answer in answers if (values := measure_answer(answer)) is not None]
    ranges: dict[Statistic, Range] = {}
    names = list(rows[0])
    # The tails of all statistics together hold at most this share.
    tail = _MOST_OUTSIDE / (2 * len(names))
    for name in names:
        low, high = np.quantile([row[name] for row in rows], [tail, 1 - tail]).tolist()
        if name in ("words", "letters_per_word"):
            ranges[name] = Range(low=1.0, high=round(2 * high, 3))
        else:
            ranges[name] = Range(low=round(max(low - 0.1, 0.0), 3), high=1.0)
    return AnswerDomain(ranges=ranges)


def measure_answer(answer: str) -> dict[Statistic, float] | None:
    """Return the statistics of an answer in plain text, or None if it has no words."""
    words = answer.lower().split()
    letters = [letter for letter in answer if letter.isalpha()]
    if not words:
        return None
    # Long texts repeat words, so only their beginning is comparable.
    beginning = words[:200]
    latin = sum(letter < "\u0250" for letter in letters)
    return {
        "words": float(len(words)),
        "letters_per_word": sum(map(len, words)) / len(words),
        "different_words": len(set(beginning)) / len(beginning),
        "latin_letters": latin / len(letters) if letters else 1.0,
    }
