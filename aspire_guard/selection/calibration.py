"""From a selection score to a probability, and to the threshold above which answers are released."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

Numbers = NDArray[np.float64]
Labels = NDArray[np.bool_]

_LEAST_RELEASED = 10
_LEAST_ODDS = -700.0  # e to a higher power is beyond a float
_HIGHEST_CONFIDENCE = math.nextafter(1.0, 0.0)


class Calibration(BaseModel):
    """Platt scaling of the selection score, and a threshold on the confidence it gives.

    Attributes:
        slope: of the log-odds of being right per nat of selection score; never negative, so order is kept.
        intercept: of the same line.
        threshold: the least confidence that is released, in [0, 1].
        target_accuracy: what the released answers of the calibration records reach; None where nothing reaches it,
            and then the threshold releases nothing.
        guarantee: what the threshold promises of future answers, in one sentence; None: nothing.
        n: labelled answers it was fitted on.
        date: when, ISO 8601.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str = "platt"
    slope: float = Field(ge=0, allow_inf_nan=False)
    intercept: float = Field(allow_inf_nan=False)
    threshold: float = Field(ge=0, le=1)
    target_accuracy: float | None
    guarantee: str | None = None
    n: int = Field(ge=0)
    date: str

    def confidence(self, selection_score: float) -> float:
        """The probability of being right, in [0, 1): a threshold of 1 releases nothing. NaN stays NaN."""
        odds = self.slope * selection_score + self.intercept
        if odds < _LEAST_ODDS:
            return 0.0
        return min(1 / (1 + math.exp(-odds)), _HIGHEST_CONFIDENCE)


def fit_calibration(scores: ArrayLike, correct: ArrayLike, *, target_accuracy: float, date: str) -> Calibration:
    """Fit the confidence on labelled answers, and take the lowest threshold whose released answers reach the target.

    The target is met on these very answers: it is an estimate, not a guarantee about others.

    Args:
        scores: selection scores, `(n,)`.
        correct: whether each answer is right, `(n,)`.
        target_accuracy: the accuracy wanted among released answers, in (0, 1].
        date: written into the result.
    """
    score, right = np.asarray(scores, dtype=float), np.asarray(correct, dtype=bool)
    slope, intercept = _fit_line(score, right)
    line = Calibration(slope=slope, intercept=intercept, threshold=1.0, target_accuracy=None, n=len(right), date=date)
    # The very numbers that will be compared with the threshold: numpy's may differ in the last digit.
    confidence = np.array([line.confidence(value) for value in score.tolist()])
    threshold = _lowest_threshold(confidence, right, target_accuracy)
    if threshold is None:
        return line
    return line.model_copy(update={"threshold": threshold, "target_accuracy": target_accuracy})


def _fit_line(score: Numbers, right: Labels) -> tuple[float, float]:
    """Slope and intercept of the log-odds; flat at the base rate where the scores tell nothing of it."""
    # scikit-learn takes a second to import, and only trainers come here.
    from sklearn.linear_model import LogisticRegression

    if right.any() and not right.all():
        line = LogisticRegression(C=1e6).fit(score[:, None], right)
        if line.coef_[0, 0] > 0:
            return float(line.coef_[0, 0]), float(line.intercept_[0])
    # Laplace's rule keeps the odds finite where all answers are right, all are wrong, or there are none.
    return 0.0, math.log((right.sum() + 1) / ((~right).sum() + 1))


def _lowest_threshold(confidence: Numbers, right: Labels, target: float) -> float | None:
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    accuracy = np.cumsum(right[order]) / np.arange(1, len(right) + 1)
    # A threshold lies between two different scores: ties are released together.
    is_cut = np.append(ranked[:-1] > ranked[1:], True)
    good = np.flatnonzero(is_cut & (accuracy >= target) & (np.arange(1, len(right) + 1) >= _LEAST_RELEASED))
    return float(ranked[good[-1]]) if len(good) else None
