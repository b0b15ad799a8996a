"""Single numbers for the quality of a ranking of right answers above wrong ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from aspire_guard.errors import InputError
from aspire_guard.selection.metrics.answers import as_correct, as_pair


class OperatingPoint(NamedTuple):
    """Coverage and accuracy at one threshold.

    Attributes:
        coverage: the share of questions that are answered, in [0, 1].
        accuracy: the selective accuracy, the share of right answers among those, or None if no question is answered.
    """

    coverage: float
    accuracy: float | None


def accuracy(correct: ArrayLike) -> float:
    """Return the share of right answers, in [0, 1].

    Raises:
        InputError: `correct` is empty or holds anything but booleans.
    """
    return float(as_correct(correct).mean())


def auroc(scores: ArrayLike, correct: ArrayLike) -> float:
    """Return the probability that a random right answer scores higher than a random wrong one. A tie counts half.

    Exact: the Mann-Whitney U statistic on mid-ranks, divided by the number of pairs.

    Raises:
        InputError: empty, unequal lengths, NaN, or all answers are right or all wrong.
    """
    score, right = as_pair(scores, correct)
    n_right = int(right.sum())
    n_wrong = right.size - n_right
    if n_right == 0 or n_wrong == 0:
        found = "only right ones" if n_right else "only wrong ones"
        raise InputError(
            f"AUROC: expected right and wrong answers, found {found}; evaluate on more questions."
        )
    _, block, size = np.unique(score, return_inverse=True, return_counts=True)
    mid_rank = np.cumsum(size) - (size - 1) / 2
    u = mid_rank[block[right]].sum() - n_right * (n_right + 1) / 2
    return float(u / (n_right * n_wrong))


def auacc(scores: ArrayLike, correct: ArrayLike) -> float:
    """Return the area under the accuracy-coverage curve: the mean over n of the accuracy of the n highest-scored.

    Answers that tie have no order, so a list that ends inside a block of ties takes the accuracy expected under a
    random order: each answer of the block counts with the block's mean, which makes the result exact.

    Raises:
        InputError: empty, unequal lengths or NaN.
    """
    score, right = as_pair(scores, correct)
    _, block, size = np.unique(-score, return_inverse=True, return_counts=True)
    block_mean = np.bincount(block, weights=right) / size
    # np.unique sorts ascending, so on the negated scores the blocks come highest first.
    n_right = np.cumsum(np.repeat(block_mean, size))
    return float((n_right / np.arange(1, right.size + 1)).mean())


def aurc(scores: ArrayLike, correct: ArrayLike) -> float:
    """Return the area under the risk-coverage curve, 1 − AUACC: the mean over n of the risk of the n highest-scored.

    Raises:
        InputError: empty, unequal lengths or NaN.
    """
    return 1 - auacc(scores, correct)


def e_aurc(scores: ArrayLike, correct: ArrayLike) -> float:
    """Return the excess AURC: how far AURC lies above that of a perfect ranking of the same answers, ≥ 0.

    A perfect ranking has all right answers first, so that the risk of the n highest is max(0, n − n_right) / n.

    Raises:
        InputError: empty, unequal lengths or NaN.
    """
    right = as_correct(correct)
    # Never below 0 by the rounding of two sums.
    return max(0.0, auacc(right, right) - auacc(scores, right))


def coverage_and_accuracy(
    scores: ArrayLike, correct: ArrayLike, threshold: float
) -> OperatingPoint:
    """Return coverage and selective accuracy when an answer is released at a score ≥ threshold.

    Raises:
        InputError: empty, unequal lengths or NaN (the threshold's too).
    """
    score, right = as_pair(scores, correct)
    if np.isnan(threshold):
        raise InputError("threshold: expected a number, found NaN; calibrate it again.")
    answered = score >= threshold
    selective_accuracy = float(right[answered].mean()) if answered.any() else None
    return OperatingPoint(float(answered.mean()), selective_accuracy)
