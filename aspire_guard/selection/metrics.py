"""Metrics of selective prediction: how well a selection score ranks right answers above wrong ones.

Everywhere `scores` are selection scores, shape `(n,)`, higher where the answer is more likely right,
and `correct` tells of each answer whether it is right, shape `(n,)`, booleans or 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aspire_guard.errors import InputError

Scores = NDArray[np.float64]
Correct = NDArray[np.bool_]
Metric = Callable[[Scores, Correct], float]

# Draws per resample before a metric counts as undefined on this data.
_MAX_DRAWS = 100


class OperatingPoint(NamedTuple):
    """What one threshold buys.

    Attributes:
        coverage: the share of questions that are answered, in [0, 1].
        accuracy: the selective accuracy, the share of right answers among those; None where none is answered.
    """

    coverage: float
    accuracy: float | None


class Interval(NamedTuple):
    """A metric with its bootstrap interval.

    Attributes:
        value: the metric on the data itself.
        low: the lower end of the interval.
        high: the upper end of the interval.
    """

    value: float
    low: float
    high: float


def accuracy(correct: ArrayLike) -> float:
    """Return the share of right answers, in [0, 1].

    Raises:
        InputError: `correct` is empty or holds something else than booleans.
    """
    return float(_as_correct(correct).mean())


def auroc(scores: ArrayLike, correct: ArrayLike) -> float:
    """Return the probability that a random right answer scores higher than a random wrong one; a tie counts half.

    Exact: the Mann-Whitney U statistic on mid-ranks, divided by the number of pairs.

    Raises:
        InputError: empty, unequal lengths, NaN, or all answers are right or all wrong.
    """
    score, right = _as_pair(scores, correct)
    n_right = int(right.sum())
    n_wrong = right.size - n_right
    if n_right == 0 or n_wrong == 0:
        found = "only right ones" if n_right else "only wrong ones"
        raise InputError(f"AUROC: expected right and wrong answers, found {found}; evaluate on more questions.")
    _, block, size = np.unique(score, return_inverse=True, return_counts=True)
    mid_rank = np.cumsum(size) - (size - 1) / 2
    u = mid_rank[block[right]].sum() - n_right * (n_right + 1) / 2
    return float(u / (n_right * n_wrong))


def auacc(scores: ArrayLike, correct: ArrayLike) -> float:
    """Return the area under the accuracy-coverage curve: the mean over n of the accuracy of the n highest-scored.

    Answers that tie have no order, so a cut through a block of ties takes the accuracy expected under a
    random order: each answer of the block counts with the block's mean, which makes the result exact.

    Raises:
        InputError: empty, unequal lengths or NaN.
    """
    score, right = _as_pair(scores, correct)
    _, block, size = np.unique(-score, return_inverse=True, return_counts=True)
    block_mean = np.bincount(block, weights=right) / size
    # np.unique sorts ascending, so on the negated scores the blocks come highest first.
    n_right = np.cumsum(np.repeat(block_mean, size))
    return float((n_right / np.arange(1, right.size + 1)).mean())


def coverage_and_accuracy(scores: ArrayLike, correct: ArrayLike, threshold: float) -> OperatingPoint:
    """Return coverage and selective accuracy when an answer is released at a score ≥ threshold.

    Raises:
        InputError: empty, unequal lengths or NaN (the threshold's too).
    """
    score, right = _as_pair(scores, correct)
    if np.isnan(threshold):
        raise InputError("threshold: expected a number, found NaN; calibrate it again.")
    answered = score >= threshold
    selective_accuracy = float(right[answered].mean()) if answered.any() else None
    return OperatingPoint(float(answered.mean()), selective_accuracy)


def bootstrap_interval(
    metric: Metric,
    scores: ArrayLike,
    correct: ArrayLike,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return a metric with its percentile bootstrap interval, resampling questions with replacement.

    A resample on which the metric is undefined (it raises InputError or gives NaN, as AUROC does where
    all drawn answers are right) is drawn again, so the interval rests on exactly `resamples` values.
    Equal seeds draw equal questions, so scores of the same answers are compared on the same resamples.

    Args:
        metric: a function of scores and correct, e.g. `auroc`.
        resamples: how many resamples the interval rests on, at least 1.
        seed: of the draws.
        level: the share of resamples inside the interval, in (0, 1).

    Raises:
        InputError: bad options, or the metric is undefined on the data or on nearly all resamples.
    """
    if resamples < 1 or not 0 < level < 1:
        found = f"resamples={resamples}, level={level}"
        raise InputError(f"bootstrap: expected resamples ≥ 1 and 0 < level < 1, found {found}; mend the options.")
    score, right = _as_pair(scores, correct)
    value = metric(score, right)
    rng = np.random.default_rng(seed)
    drawn = [_defined_resample(metric, score, right, rng) for _ in range(resamples)]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high))


def _defined_resample(metric: Metric, score: Scores, right: Correct, rng: np.random.Generator) -> float:
    """Return the metric on the first resample where it is defined."""
    for _ in range(_MAX_DRAWS):
        index = rng.integers(score.size, size=score.size)
        try:
            value = metric(score[index], right[index])
        except InputError:
            continue
        if not np.isnan(value):
            return value
    raise InputError(
        f"bootstrap: expected a metric that most resamples define, found {_MAX_DRAWS} undefined in a row; "
        "evaluate on more questions."
    )


def _as_pair(scores: ArrayLike, correct: ArrayLike) -> tuple[Scores, Correct]:
    right = _as_correct(correct)
    try:
        score = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"scores: expected numbers, found: {error}; pass one score an answer.") from error
    if score.shape != right.shape:
        found = f"shapes {score.shape} and {right.shape}"
        raise InputError(f"scores and correct: expected one of each an answer, found {found}; pair them up.")
    if np.isnan(score).any():
        found = f"{int(np.isnan(score).sum())} NaN"
        raise InputError(f"scores: expected numbers, found {found}; leave these answers out or score them again.")
    return score, right


def _as_correct(correct: ArrayLike) -> Correct:
    right = np.asarray(correct)
    if right.ndim != 1 or right.size == 0:
        found = f"shape {right.shape}"
        raise InputError(f"correct: expected a list of at least one boolean, found {found}; evaluate some answers.")
    if right.dtype != np.bool_ and not np.isin(right, (0, 1)).all():
        raise InputError(
            f"correct: expected booleans, found {right.dtype} other than 0 and 1; apply a threshold first."
        )
    return right.astype(np.bool_)
