"""Confidence as a free increasing function: isotonic regression, and Venn–Abers with its interval."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field, model_validator

from aspire_guard.selection.arrays import Numbers
from aspire_guard.selection.calibrators.base import HIGHEST_CONFIDENCE, Calibrator

_ORDER_WEIGHT = 1e-6

_Knots = tuple[Annotated[float, Field(allow_inf_nan=False)], ...]
_Probabilities = tuple[Annotated[float, Field(ge=0, le=1)], ...]


class IsotonicCalibrator(Calibrator):
    """Isotonic regression: straight lines between knots, level beyond the first and the last.

    Attributes:
        knots: selection scores, `(k,)`, strictly increasing.
        values: the share of right answers at each knot, `(k,)`, never falling.
    """

    method: Literal["isotonic"] = "isotonic"
    knots: _Knots = Field(min_length=1)
    values: _Probabilities = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.knots) != len(self.values):
            raise ValueError(
                f"expected one value per knot, found {len(self.values)} and {len(self.knots)}"
            )
        _check_order(self.knots, self.values)
        return self

    def confidences(self, scores: ArrayLike) -> Numbers:
        """Return the probabilities of being right, in [0, 1), of selection scores `(n,)`. NaN stays NaN."""
        score = np.asarray(scores, dtype=np.float64)
        knots, values = np.array(self.knots), np.array(self.values)
        # The places of the knots on either side of each score, `(n,)`. Beyond an end, both are the last knot there.
        next_knot = np.searchsorted(knots, score, side="right")
        left = np.maximum(next_knot - 1, 0)
        right = np.minimum(next_knot, len(knots) - 1)
        gap = knots[right] - knots[left]
        share = np.divide(score - knots[left], gap, out=np.zeros_like(score), where=gap > 0)
        rise = values[right] - values[left]
        # Rounding could carry the end of one line an ulp above the start of the next.
        level = np.minimum(values[left] + share * rise, values[right])
        return _break_plateaus(level, score)


class VennAbersCalibrator(Calibrator):
    """Inductive Venn–Abers: isotonic regression with the new answer counted once as wrong and once as right.

    The two results p0 ≤ p1 hold a probability that is calibrated whatever the data (Vovk, Petej and Fedorova,
    2015, "Large-scale probabilistic predictors with and without guarantees of validity"). The confidence merges
    them for the least worst-case log loss: p1 / (1 − p0 + p1). Both are step functions of the score.

    Attributes:
        lower_knots: selection scores from which on (inclusive) p0 takes its next value, `(j,)`, increasing.
        lower: the values of p0, `(j + 1,)`, never falling.
        upper_knots: selection scores above which (exclusive) p1 takes its next value, `(k,)`, increasing.
        upper: the values of p1, `(k + 1,)`, never falling.
    """

    method: Literal["venn_abers"] = "venn_abers"
    lower_knots: _Knots
    lower: _Probabilities
    upper_knots: _Knots
    upper: _Probabilities

    @model_validator(mode="after")
    def _check(self) -> Self:
        steps = ((self.lower_knots, self.lower), (self.upper_knots, self.upper))
        for knots, values in steps:
            if len(values) != len(knots) + 1:
                raise ValueError(
                    f"expected one value more than knots, found {len(values)} and {len(knots)}"
                )
            _check_order(knots, values)
        # Both are step functions: they are closest right after p0 has risen and before p1 does.
        p0, p1 = self._compute_bounds(np.array([-np.inf, *self.lower_knots]))
        if (p0 > p1).any():
            raise ValueError("expected p0 ≤ p1 everywhere, found a score where it is above")
        return self

    def interval(self, selection_score: float) -> tuple[float, float]:
        """Return p0 and p1: the probability of being right if this answer is counted as wrong, and as right."""
        p0, p1 = self._compute_bounds(np.array([selection_score]))
        return float(p0[0]), float(p1[0])

    def confidences(self, scores: ArrayLike) -> Numbers:
        """Return the probabilities of being right, in [0, 1), of selection scores `(n,)`. NaN stays NaN."""
        score = np.asarray(scores, dtype=np.float64)
        p0, p1 = self._compute_bounds(score)
        return _break_plateaus(p1 / (1 - p0 + p1), score)

    def _compute_bounds(self, score: Numbers) -> tuple[Numbers, Numbers]:
        p0_step = np.searchsorted(np.array(self.lower_knots), score, side="right")
        p1_step = np.searchsorted(np.array(self.upper_knots), score, side="left")
        return np.array(self.lower)[p0_step], np.array(self.upper)[p1_step]


def _check_order(knots: tuple[float, ...], values: tuple[float, ...]) -> None:
    if (np.diff(knots) <= 0).any():
        raise ValueError("expected knots that increase, found two that don't")
    if (np.diff(values) < 0).any():
        raise ValueError("expected values that never fall, found one below the one before")


def _break_plateaus(level: Numbers, score: Numbers) -> Numbers:
    """Return the level with a trace of the score mixed in, kept below 1.

    On a plateau, answers with different scores would tie, and a threshold that was tested for the better ones would
    also release the worse ones. So a millionth of the confidence is (1 + g / (1 + |g|)) / 2, which only ever rises.
    """
    squashed = np.sign(score) * (1 - 1 / (1 + np.abs(score)))
    confidence = (1 - _ORDER_WEIGHT) * level + _ORDER_WEIGHT * (1 + squashed) / 2
    return np.minimum(confidence, HIGHEST_CONFIDENCE)
