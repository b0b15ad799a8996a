"""Confidence as a logistic function: Platt scaling of any score, and a temperature for log-probabilities."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from aspire_guard.selection.arrays import Numbers
from aspire_guard.selection.calibrators.base import HIGHEST_CONFIDENCE, Calibrator

_MIN_LOG_ODDS = -700.0  # e to a higher power is beyond a float
_MAX_LOG_ODDS = 36.0  # 1 − 1 / (1 + e^36) is the last probability that a float can tell from 1


class PlattCalibrator(Calibrator):
    """Platt scaling: 1 / (1 + exp(−(slope · g + intercept))) of the selection score g.

    Attributes:
        slope: the log-odds of being right per unit of score, never negative, so that order is kept. A slope of 0
            gives every answer the same confidence. The scores then say nothing, and all of them tie.
        intercept: the log-odds at a score of 0.
    """

    method: Literal["platt"] = "platt"
    slope: float = Field(ge=0, allow_inf_nan=False)
    intercept: float = Field(allow_inf_nan=False)

    def confidences(self, scores: ArrayLike) -> Numbers:
        """Return the probabilities of being right, in [0, 1), of selection scores `(n,)`. NaN stays NaN."""
        score = np.asarray(scores, dtype=np.float64)
        if self.slope == 0:
            return logistic(np.where(np.isnan(score), np.nan, self.intercept))
        with np.errstate(over="ignore"):
            return logistic(self.slope * score + self.intercept)


class TemperatureCalibrator(Calibrator):
    """Temperature scaling of a selection score that is a log-probability, e.g. the mean over an answer's tokens.

    exp(g) is read as a probability, its log-odds are log(exp(g) / (1 − exp(g))), and the confidence is the
    logistic of these log-odds divided by the temperature. A probability that a float can't tell from 1 has log-odds of
    36, so from a g of about −2e-16 on all scores tie.

    Attributes:
        temperature: above 1 draws confidences towards ½, below 1 away from it.
    """

    method: Literal["temperature"] = "temperature"
    temperature: float = Field(gt=0, allow_inf_nan=False)

    def confidences(self, scores: ArrayLike) -> Numbers:
        """Return the probabilities of being right, in [0, 1), of selection scores `(n,)` in nats. NaN stays NaN."""
        with np.errstate(over="ignore"):
            odds = log_odds(np.asarray(scores, dtype=np.float64))
            return logistic(odds / self.temperature)


def log_odds(score: Numbers) -> Numbers:
    """Return log(p / (1 − p)) of p = exp(score), at most 36, for scores `(n,)` in nats."""
    highest = -math.exp(-_MAX_LOG_ODDS)
    scores = np.minimum(score, highest).tolist()
    # With math and not numpy, for the reason given in `logistic`.
    odds = (log_p - math.log(-math.expm1(log_p)) for log_p in scores)
    return np.fromiter(odds, np.float64, score.size)


def logistic(odds: Numbers) -> Numbers:
    """Return 1 / (1 + exp(−odds)) of log-odds `(n,)`, kept below 1."""
    exponents = np.minimum(-odds, -_MIN_LOG_ODDS).tolist()
    # math.exp and not numpy's, whose last digit depends on the processor: an answer at the threshold would be
    # released on the machine that calibrated and withheld on another.
    powers = np.fromiter(map(math.exp, exponents), np.float64, odds.size)
    confidence = np.where(odds < _MIN_LOG_ODDS, 0.0, 1 / (1 + powers))
    return np.minimum(confidence, HIGHEST_CONFIDENCE)
