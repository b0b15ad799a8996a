"""Confidence as a logistic function: Platt scaling of any score, and a temperature for log-probabilities."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from aspire_guard.selection.arrays import Numbers
from aspire_guard.selection.calibrators.base import HIGHEST_CONFIDENCE, ScoreCalibrator

_LEAST_ODDS = -700.0  # e to a higher power is beyond a float
_HIGHEST_LOG_ODDS = 36.0  # 1 − 1 / (1 + e^36) is the last probability that a float can tell from 1


class PlattCalibrator(ScoreCalibrator):
    """Platt scaling: 1 / (1 + exp(−(slope · g + intercept))) of the selection score g.

    Attributes:
        slope: of the log-odds of being right per unit of score; never negative, so order is kept. 0 gives every
            answer the same confidence: the scores then tell nothing, and all of them tie.
        intercept: of the same line.
    """

    method: Literal["platt"] = "platt"
    slope: float = Field(ge=0, allow_inf_nan=False)
    intercept: float = Field(allow_inf_nan=False)

    def confidences(self, scores: ArrayLike) -> Numbers:
        """The probabilities of being right, in [0, 1), of selection scores `(n,)`. NaN stays NaN."""
        score = np.asarray(scores, dtype=np.float64)
        if self.slope == 0:
            return logistic(np.where(np.isnan(score), np.nan, self.intercept))
        with np.errstate(over="ignore"):
            return logistic(self.slope * score + self.intercept)


class TemperatureCalibrator(ScoreCalibrator):
    """Temperature scaling of a selection score that is a log-probability, e.g. the mean one of an answer's tokens.

    exp(g) is read as a probability, its log-odds are log(exp(g) / (1 − exp(g))), and the confidence is the
    logistic of these log-odds divided by the temperature. A probability that a float can't tell from 1 has log-odds of
    36, so from a g of about −2e-16 on all scores tie.

    Attributes:
        temperature: above 1 draws confidences towards ½, below 1 away from it.
    """

    method: Literal["temperature"] = "temperature"
    temperature: float = Field(gt=0, allow_inf_nan=False)

    def confidences(self, scores: ArrayLike) -> Numbers:
        """The probabilities of being right, in [0, 1), of selection scores `(n,)` in nats. NaN stays NaN."""
        with np.errstate(over="ignore"):
            return logistic(log_odds(np.asarray(scores, dtype=np.float64)) / self.temperature)


def log_odds(score: Numbers) -> Numbers:
    """log(p / (1 − p)) of p = exp(score), at most 36; scores `(n,)` in nats."""
    # With math for the reason that `logistic` has.
    below = np.minimum(score, -math.exp(-_HIGHEST_LOG_ODDS)).tolist()
    return np.fromiter((g - math.log(-math.expm1(g)) for g in below), np.float64, score.size)


def logistic(odds: Numbers) -> Numbers:
    """1 / (1 + exp(−odds)) of log-odds `(n,)`, kept below 1."""
    # math.exp and not numpy's, whose last digit depends on the processor: an answer at the threshold would be
    # released on the machine that calibrated and withheld on another.
    powers = np.minimum(-odds, -_LEAST_ODDS)
    confidence = 1 / (1 + np.fromiter(map(math.exp, powers.tolist()), np.float64, odds.size))
    return np.minimum(np.where(odds < _LEAST_ODDS, 0.0, confidence), HIGHEST_CONFIDENCE)
