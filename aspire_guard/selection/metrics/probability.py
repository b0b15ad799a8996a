"""Calibration error of confidences: of the answers given 0.8, are 80 % right?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from aspire_guard.errors import InputError
from aspire_guard.selection.metrics.answers import as_probabilities

_BINS = 15


class ReliabilityBin(NamedTuple):
    """Answers of about the same confidence.

    Attributes:
        low: their lowest confidence.
        high: their highest confidence.
        n: the number of these answers, at least 1.
        confidence: their mean confidence.
        accuracy: the share of right ones among them.
    """

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


def brier(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Return the mean squared distance of the confidence from the outcome (1 right, 0 wrong), in [0, 1].

    Raises:
        InputError: empty, unequal lengths, or not probabilities.
    """
    probability, right = as_probabilities(confidence, correct)
    return float(np.mean((probability - right) ** 2))


def ece(confidence: ArrayLike, correct: ArrayLike, *, bins: int = _BINS) -> float:
    """Return the expected calibration error over bins of equal mass: the mean |mean confidence − accuracy|, in [0, 1].

    Each bin of `reliability_bins` counts with its number of answers. Small samples have an error above 0 even if
    confidences are perfect, the more so the more bins.

    Raises:
        InputError: empty, unequal lengths, no probabilities, or no bins.
    """
    rows = reliability_bins(confidence, correct, bins=bins)
    n = sum(row.n for row in rows)
    return sum(row.n * abs(row.confidence - row.accuracy) for row in rows) / n


def reliability_bins(
    confidence: ArrayLike, correct: ArrayLike, *, bins: int = _BINS
) -> list[ReliabilityBin]:
    """Return up to `bins` groups of equally many answers, lowest confidence first.

    Answers that tie stay together, in the bin where the middle of their ranks lies, so bins can differ in size,
    and there are fewer bins if many answers tie.

    Raises:
        InputError: empty, unequal lengths, no probabilities, or no bins.
    """
    if bins < 1:
        raise InputError(f"bins: expected at least 1, found {bins}; pass e.g. {_BINS}.")
    probability, right = as_probabilities(confidence, correct)
    value, block, size = np.unique(probability, return_inverse=True, return_counts=True)
    # Twice the middle rank is a whole number, so that no rounding moves an answer between bins.
    bin_of_value = bins * (2 * np.cumsum(size) - size) // (2 * probability.size)
    first = np.flatnonzero(np.diff(bin_of_value, prepend=-1))
    n = np.add.reduceat(size, first)
    n_right = np.add.reduceat(np.bincount(block, weights=right), first)
    total = np.add.reduceat(value * size, first)
    last = np.append(first[1:], value.size) - 1
    columns = (value[first], value[last], n, total / n, n_right / n)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [ReliabilityBin(*row) for row in rows]
