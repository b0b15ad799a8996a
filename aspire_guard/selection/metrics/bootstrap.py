"""How far a metric could have come out otherwise with other questions."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from aspire_guard.errors import InputError
from aspire_guard.selection.metrics.answers import Correct, Scores, as_pair

Metric = Callable[[Scores, Correct], float]

# Draws per resample before a metric counts as undefined on this data.
_MAX_DRAWS = 100


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
    score, right = as_pair(scores, correct)
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
