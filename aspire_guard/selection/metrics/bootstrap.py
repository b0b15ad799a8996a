"""Bootstrap intervals: the range in which a metric could have come out with other questions."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from aspire_guard.errors import InputError
from aspire_guard.selection.arrays import Counts, Labels, Numbers
from aspire_guard.selection.metrics.answers import as_pair

Metric = Callable[[Numbers, Labels], float]

# Draws per resample before a metric counts as undefined on this data.
_MAX_DRAWS = 100


class Interval(NamedTuple):
    """A metric, or a difference of two, with its bootstrap interval.

    Attributes:
        value: the value on the data itself.
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
    questions: Sequence[Hashable] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return a metric with its percentile bootstrap interval, resampling questions with replacement.

    A resample on which the metric is undefined (it raises InputError or gives NaN, as AUROC does if all drawn answers
    are right) is drawn again, so the interval rests on exactly `resamples` values.
    Equal seeds draw equal questions, so scores of the same answers are compared on the same resamples.

    Args:
        metric: a function of scores and correct, e.g. `auroc`.
        questions: the question of each answer, if a question has several answers: they are drawn together.
        resamples: the number of resamples that the interval rests on, at least 1.
        seed: the seed of the draws.
        level: the share of resamples inside the interval, in (0, 1).

    Raises:
        InputError: bad options, or the metric is undefined on the data or on nearly all resamples.
    """
    score, right = as_pair(scores, correct)

    def measure(index: Counts) -> float:
        return metric(score[index], right[index])

    return _make_interval(measure, score.size, resamples, seed, level, questions)


def bootstrap_difference(
    metric: Metric,
    first: tuple[ArrayLike, ArrayLike],
    second: tuple[ArrayLike, ArrayLike],
    *,
    questions: Sequence[Hashable] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return how much higher `metric` is for `first` than for `second`, with the paired bootstrap interval.

    Every resample draws the same questions for both, so that the difficulty of a question for both cancels out. A
    resample on which either is undefined is drawn again.

    Args:
        metric: a function of scores and correct, e.g. `auroc`.
        first: scores and labels of answers, one answer per question.
        second: scores and labels of other answers to the same questions in the same order, or the same answers
            with another score.
        questions: the question of each answer, if a question has several answers: they are drawn together.
        resamples: the number of resamples that the interval rests on, at least 1.
        seed: the seed of the draws.
        level: the share of resamples inside the interval, in (0, 1).

    Raises:
        InputError: bad options, unequal numbers of questions, or the metric is undefined as in `bootstrap_interval`.
    """
    pairs = [as_pair(*first), as_pair(*second)]
    sizes = [score.size for score, _ in pairs]
    if sizes[0] != sizes[1]:
        raise InputError(
            f"paired bootstrap: expected answers to the same questions, found {sizes[0]} and {sizes[1]}; pair them up."
        )

    def difference(index: Counts) -> float:
        first_value, second_value = (metric(score[index], right[index]) for score, right in pairs)
        return first_value - second_value

    return _make_interval(difference, sizes[0], resamples, seed, level, questions)


def _make_interval(
    statistic: Callable[[Counts], float],
    n: int,
    resamples: int,
    seed: int,
    level: float,
    questions: Sequence[Hashable] | None = None,
) -> Interval:
    """Return the statistic of all `n` answers, and its quantiles over resamples, given as indices of answers."""
    if resamples < 1 or not 0 < level < 1:
        found = f"resamples={resamples}, level={level}"
        raise InputError(
            f"bootstrap: expected resamples ≥ 1 and 0 < level < 1, found {found}; fix the options."
        )
    value = statistic(np.arange(n))
    rng = np.random.default_rng(seed)
    draw = _make_draw(range(n) if questions is None else questions, rng)
    values = [_draw_until_defined(statistic, draw) for _ in range(resamples)]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high))


def _make_draw(questions: Sequence[Hashable], rng: np.random.Generator) -> Callable[[], Counts]:
    """Return a function that draws as many questions as there are, and returns the indices of their answers."""
    places: dict[Hashable, list[int]] = {}
    for place, question in enumerate(questions):
        places.setdefault(question, []).append(place)
    n = len(places)
    if n == len(questions):
        return lambda: rng.integers(n, size=n)
    answers_of = [np.array(answers) for answers in places.values()]
    return lambda: np.concatenate([answers_of[drawn] for drawn in rng.integers(n, size=n)])


def _draw_until_defined(statistic: Callable[[Counts], float], draw: Callable[[], Counts]) -> float:
    """Return the statistic of the first resample on which it is defined."""
    for _ in range(_MAX_DRAWS):
        try:
            value = statistic(draw())
        except InputError:
            continue
        if not np.isnan(value):
            return value
    raise InputError(
        f"bootstrap: expected a metric that is defined on most resamples, found {_MAX_DRAWS} undefined in a row; "
        "evaluate on more questions."
    )
