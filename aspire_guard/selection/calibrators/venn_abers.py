"""Inductive Venn–Abers predictors in the time of one sort (Vovk, Petej and Fedorova, 2015, section 2).

A new answer of score s is added to the calibration answers, once as wrong and once as right, and isotonic
regression gives it p0(s) and p1(s). Both are step functions of s that step at calibration scores only.

In the cumulative sum diagram, P_i = (number, number of right ones) of answers up to the i-th different score, isotonic
regression is the slope of the greatest convex minorant. The new right answer of score c_i moves the points left of it
by (−1, −1); going from one score to the next moves one point more, so the minorant is fixed rather than made anew.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aspire_guard.selection.arrays import Labels, Numbers
from aspire_guard.selection.calibrators.monotone import VennAbersCalibrator

_MAX_KNOTS = 1000

_Point = tuple[int, int]


class _Steps(NamedTuple):
    """`values[i]` up to and including `knots[i]`, the last one above all knots."""

    knots: Numbers
    values: Numbers


def fit_venn_abers(score: Numbers, right: Labels) -> VennAbersCalibrator:
    """Fit on scores and labels `(n,)`, n ≥ 1.

    Where p0 or p1 has more than 1,000 steps, values that agree to a thousandth are merged, p0's to the lowest and
    p1's to the highest of them: the interval can only grow, by less than 0.001 at either end.
    """
    upper = _thinned(_p1_steps(score, right))
    # Turned round, wrong answers are the right ones of the mirrored scores.
    mirrored = _thinned(_p1_steps(-score, ~right))
    return VennAbersCalibrator(
        lower_knots=tuple((-mirrored.knots[::-1]).tolist()),
        lower=tuple((1 - mirrored.values[::-1]).tolist()),
        upper_knots=tuple(upper.knots.tolist()),
        upper=tuple(upper.values.tolist()),
    )


def _thinned(steps: _Steps) -> _Steps:
    if len(steps.knots) <= _MAX_KNOTS:
        return steps
    keep = np.flatnonzero(np.diff(np.floor(_MAX_KNOTS * steps.values)))
    return _Steps(steps.knots[keep], steps.values[np.append(keep, len(steps.knots))])


def _p1_steps(score: Numbers, right: Labels) -> _Steps:
    """p1 as a function of the score."""
    knots, block, size = np.unique(score, return_inverse=True, return_counts=True)
    n_right = np.bincount(block, weights=right).astype(np.int64)
    corners = _corners(size, n_right)
    # Whole numbers of Python: exact, and faster one by one than numpy's.
    points = zip((np.cumsum(size) - 1).tolist(), (np.cumsum(n_right) - 1).tolist(), strict=True)
    ends, slopes = [], []
    width, height, offset = _line(corners)
    for i, (x, y) in enumerate(points):
        # The point of this score, moved by (-1, -1), lies on the minorant or above it: p1 goes on as it is.
        if width * y - height * x >= offset:
            continue
        ends.append(i)
        slopes.append(height / width)
        _mend(corners, (x, y))
        if len(corners) > 1:
            width, height, offset = _line(corners)
    # Above all scores the new right answer stands alone.
    if not ends or ends[-1] < len(knots) - 1:
        ends.append(len(knots) - 1)
        slopes.append(height / width)
    values = np.append(slopes, 1.0)
    steps = np.flatnonzero(np.diff(values) > 0)
    return _Steps(knots[np.array(ends)][steps], np.append(values[steps], 1.0))


def _line(corners: list[_Point]) -> tuple[int, int, int]:
    """The leftmost stretch of the minorant: (width, height, offset), width · y − height · x = offset on it."""
    (left, low), (right, high) = corners[-1], corners[-2]
    return right - left, high - low, (right - left) * low - (high - low) * left


def _corners(size: NDArray[np.int64], n_right: NDArray[np.int64]) -> list[_Point]:
    """Corners of the greatest convex minorant of (−1, −1), P_0, P_1, …, the leftmost last."""
    from sklearn.isotonic import isotonic_regression

    weight = np.concatenate([[1], size])
    total = np.concatenate([[1], n_right])
    level = isotonic_regression(total / weight, sample_weight=weight)
    last = np.flatnonzero(np.append(np.diff(level) > 0, True))
    x, y = np.cumsum(weight)[last] - 1, np.cumsum(total)[last] - 1
    return [(-1, -1), *zip(x.tolist(), y.tolist(), strict=True)][::-1]


def _mend(corners: list[_Point], point: _Point) -> None:
    """Put the point in the place of the leftmost corner, and take out those that are no corners any more."""
    corners.pop()
    while len(corners) > 1 and not _turns_left(point, corners[-1], corners[-2]):
        corners.pop()
    corners.append(point)


def _turns_left(a: _Point, b: _Point, c: _Point) -> bool:
    return (b[0] - a[0]) * (c[1] - a[1]) > (b[1] - a[1]) * (c[0] - a[0])
