"""Inductive Venn–Abers predictors in the time of one sort (Vovk, Petej and Fedorova, 2015, section 2).

A new answer of score s is added to the calibration answers, once as wrong and once as right, and isotonic
regression gives it p0(s) and p1(s). Both are step functions of s that step at calibration scores only.

In the cumulative sum diagram, P_i = (number, number of right ones) of answers up to the i-th different score, isotonic
regression is the slope of the greatest convex minorant. The new right answer of score c_i moves the points left of it
by (−1, −1). From one score to the next one more point moves, so the minorant is updated, not computed again.
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
    """A step function: `values[i]` up to and including `knots[i]`, the last value above all knots."""

    knots: Numbers
    values: Numbers


class _Line(NamedTuple):
    """A stretch of the minorant: the points (x, y) with width · y − height · x = offset."""

    width: int
    height: int
    offset: int


def fit_venn_abers(score: Numbers, right: Labels) -> VennAbersCalibrator:
    """Fit on scores and labels `(n,)`, n ≥ 1.

    If p0 or p1 has more than 1,000 steps, values that agree to a thousandth are merged, p0's to the lowest and
    p1's to the highest of them: the interval can only grow, by less than 0.001 at either end.
    """
    upper = _merge_steps(_compute_p1(score, right))
    # With mirrored scores, the wrong answers take the place of the right ones.
    mirrored = _merge_steps(_compute_p1(-score, ~right))
    return VennAbersCalibrator(
        lower_knots=tuple((-mirrored.knots[::-1]).tolist()),
        lower=tuple((1 - mirrored.values[::-1]).tolist()),
        upper_knots=tuple(upper.knots.tolist()),
        upper=tuple(upper.values.tolist()),
    )


def _merge_steps(steps: _Steps) -> _Steps:
    if len(steps.knots) <= _MAX_KNOTS:
        return steps
    thousandth = np.floor(_MAX_KNOTS * steps.values)
    last = np.flatnonzero(np.diff(thousandth))
    return _Steps(steps.knots[last], steps.values[np.append(last, len(steps.knots))])


def _compute_p1(score: Numbers, right: Labels) -> _Steps:
    """Return p1 as a function of the score."""
    knots, block, size = np.unique(score, return_inverse=True, return_counts=True)
    n_right = np.bincount(block, weights=right).astype(np.int64)
    # The points of the diagram, moved by (−1, −1). Python's integers are exact, and faster one by one than numpy's.
    xs = (np.cumsum(size) - 1).tolist()
    ys = (np.cumsum(n_right) - 1).tolist()
    corners = _find_corners(size, n_right)
    line = _make_leftmost_line(corners)
    ends, slopes = [], []
    for place, (x, y) in enumerate(zip(xs, ys, strict=True)):
        # The moved point of this score lies on the minorant or above it, so p1 does not change.
        if line.width * y - line.height * x >= line.offset:
            continue
        ends.append(place)
        slopes.append(line.height / line.width)
        _move_leftmost_corner(corners, (x, y))
        if len(corners) > 1:
            line = _make_leftmost_line(corners)
    # Above all scores, the new right answer is the only one.
    last = len(knots) - 1
    if not ends or ends[-1] < last:
        ends.append(last)
        slopes.append(line.height / line.width)
    values = np.append(slopes, 1.0)
    steps = np.flatnonzero(np.diff(values) > 0)
    step_knots = knots[np.array(ends)][steps]
    return _Steps(step_knots, np.append(values[steps], 1.0))


def _make_leftmost_line(corners: list[_Point]) -> _Line:
    left_x, left_y = corners[-1]
    right_x, right_y = corners[-2]
    width, height = right_x - left_x, right_y - left_y
    return _Line(width, height, width * left_y - height * left_x)


def _find_corners(size: NDArray[np.int64], n_right: NDArray[np.int64]) -> list[_Point]:
    """Return the corners of the greatest convex minorant of (−1, −1), P_0, P_1, …, the leftmost last."""
    from sklearn.isotonic import isotonic_regression

    weight = np.concatenate([[1], size])
    total = np.concatenate([[1], n_right])
    level = isotonic_regression(total / weight, sample_weight=weight)
    last = np.flatnonzero(np.append(np.diff(level) > 0, True))
    x = np.cumsum(weight)[last] - 1
    y = np.cumsum(total)[last] - 1
    from_left = [(-1, -1), *zip(x.tolist(), y.tolist(), strict=True)]
    return from_left[::-1]


def _move_leftmost_corner(corners: list[_Point], point: _Point) -> None:
    """Replace the leftmost corner by the point, and remove the corners that are no longer corners."""
    corners.pop()
    while len(corners) > 1 and not _turns_left(point, corners[-1], corners[-2]):
        corners.pop()
    corners.append(point)


def _turns_left(a: _Point, b: _Point, c: _Point) -> bool:
    return (b[0] - a[0]) * (c[1] - a[1]) > (b[1] - a[1]) * (c[0] - a[0])
