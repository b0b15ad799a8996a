"""Fitting calibrators on labelled answers, and choosing among them by cross-validation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from aspire_guard.errors import InputError
from aspire_guard.selection.arrays import Labels, Numbers
from aspire_guard.selection.calibrators.logistic import (
    PlattCalibrator,
    TemperatureCalibrator,
    log_odds,
)
from aspire_guard.selection.calibrators.monotone import IsotonicCalibrator, VennAbersCalibrator
from aspire_guard.selection.calibrators.venn_abers import fit_venn_abers
from aspire_guard.selection.metrics.answers import as_pair
from aspire_guard.selection.metrics.probability import brier, ece

Method = Literal["platt", "isotonic", "temperature", "venn_abers"]
METHODS: tuple[Method, ...] = ("platt", "isotonic", "temperature", "venn_abers")
AnyCalibrator = PlattCalibrator | IsotonicCalibrator | TemperatureCalibrator | VennAbersCalibrator

_MOST_COMPARED = 100_000
# The penalty is so weak that it only keeps the line finite where scores part right from wrong perfectly.
_MOST_LIKELY: dict[str, Any] = {"C": 1e6, "solver": "newton-cholesky", "tol": 1e-8}
_TEMPERATURES = (1e-3, 1e3)


class Losses(NamedTuple):
    """Losses of one method on answers that it was not fitted on; lower is better.

    Attributes:
        brier: the mean squared distance of confidence from what came true.
        log_loss: the mean negative log-likelihood of what came true, in nats.
        ece: the expected calibration error over 15 bins of equal mass.
    """

    brier: float
    log_loss: float
    ece: float


class FittedCalibrator(NamedTuple):
    """A calibrator and why it was taken.

    Attributes:
        calibrator: fitted on all answers.
        comparison: the cross-validated losses of each method that was tried; empty where there were too few answers.
    """

    calibrator: AnyCalibrator
    comparison: dict[Method, Losses]


def fit_calibrator(
    scores: ArrayLike,
    correct: ArrayLike,
    *,
    method: Method | Literal["best"] = "best",
    criterion: Literal["brier", "log_loss"] = "brier",
    folds: int = 5,
    seed: int = 0,
) -> FittedCalibrator:
    """Fit the confidence on labelled answers.

    `best` takes the method of least cross-validated loss: among all four, without temperature where a score is above
    0 (no log-probability). Methods are compared on at most 100,000 answers, drawn at random, and the one taken is
    fitted on all. Where fewer than 2 · `folds` of those are right, or wrong, there is no comparison and Platt is best.
    Where all answers are right, all are wrong, or there are none, every method gives one confidence to all: Laplace's
    (right + 1) / (n + 2).

    Args:
        scores: selection scores, `(n,)`, finite.
        correct: whether each answer is right, `(n,)`.
        method: what to fit.
        criterion: the loss that decides which is best.
        folds: of the cross-validation, at least 2; every fold has its share of right and wrong answers.
        seed: of the folds.

    Raises:
        InputError: unequal lengths, scores that are not finite, or a temperature for scores above 0.
    """
    score, right = _checked(scores, correct)
    if right.all() or not right.any():
        return FittedCalibrator(_base_rate(right), {})
    no_log_probability = float(score.max()) > 0
    if no_log_probability and method == "temperature":
        raise InputError(
            f"temperature: expected log-probabilities, which are at most 0, found a score of {score.max():g}; "
            "take another method."
        )
    tried = tuple(m for m in METHODS if not (no_log_probability and m == "temperature"))
    if method != "best":
        tried = (method,)
    comparison = _compare(tried, score, right, folds, seed)
    best = (
        min(comparison, key=lambda m: getattr(comparison[m], criterion)) if comparison else tried[0]
    )
    return FittedCalibrator(_FITS[best](score, right), comparison)


def _compare(
    methods: tuple[Method, ...], score: Numbers, right: Labels, folds: int, seed: int
) -> dict[Method, Losses]:
    """The losses on held-out answers; none where a fold could be left without right or wrong ones."""
    # scikit-learn takes a second to import, and only those who fit come here.
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedKFold

    some = np.random.default_rng(seed).permutation(right.size)[:_MOST_COMPARED]
    score, right = score[some], right[some]
    if min(right.sum(), (~right).sum()) < 2 * folds:
        return {}
    splits = list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(score, right))
    comparison: dict[Method, Losses] = {}
    for method in methods:
        confidence = np.empty_like(score)
        for kept, held_out in splits:
            confidence[held_out] = _FITS[method](score[kept], right[kept]).confidences(
                score[held_out]
            )
        comparison[method] = Losses(
            brier=brier(confidence, right),
            log_loss=float(log_loss(right, confidence, labels=[False, True])),
            ece=ece(confidence, right),
        )
    return comparison


def _fit_platt(score: Numbers, right: Labels) -> PlattCalibrator:
    """The line of most likelihood; flat at the base rate where the scores rank the wrong way round, or all tie."""
    middle, spread = float(score.mean()), float(score.std())
    if spread > 0:
        # Of unit spread, so that the penalty is equally weak, and the search equally short, on every scale.
        line = _fit_line((score[:, None] - middle) / spread, right)
        slope = float(line.coef_[0, 0]) / spread
        if slope > 0:
            return PlattCalibrator(
                slope=slope, intercept=float(line.intercept_[0]) - slope * middle
            )
    return _base_rate(right)


def _fit_isotonic(score: Numbers, right: Labels) -> IsotonicCalibrator:
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(y_min=0, y_max=1).fit(score, right.astype(np.float64))
    # scikit-learn keeps the ends of each level stretch only.
    return IsotonicCalibrator(
        knots=fitted.X_thresholds_.tolist(), values=fitted.y_thresholds_.tolist()
    )


def _fit_temperature(score: Numbers, right: Labels) -> TemperatureCalibrator:
    odds = log_odds(score)
    spread = float(np.abs(odds).max()) or 1.0
    line = _fit_line(odds[:, None] / spread, right, fit_intercept=False)
    low, high = _TEMPERATURES
    # Odds that point the wrong way have no temperature: the highest says ½ of everything.
    inverse = max(float(line.coef_[0, 0]) / spread, 1 / high)
    return TemperatureCalibrator(temperature=max(1 / inverse, low))


def _base_rate(right: Labels) -> PlattCalibrator:
    # Laplace's rule keeps the odds finite where all answers are right, all are wrong, or there are none.
    return PlattCalibrator(slope=0.0, intercept=math.log((right.sum() + 1) / ((~right).sum() + 1)))


_FITS: dict[Method, Callable[[Numbers, Labels], AnyCalibrator]] = {
    "platt": _fit_platt,
    "isotonic": _fit_isotonic,
    "temperature": _fit_temperature,
    "venn_abers": fit_venn_abers,
}


def _checked(scores: ArrayLike, correct: ArrayLike) -> tuple[Numbers, Labels]:
    if np.size(scores) == np.size(correct) == 0:
        return np.empty(0), np.empty(0, dtype=np.bool_)
    score, right = as_pair(scores, correct)
    if np.isinf(score).any():
        found = f"{int(np.isinf(score).sum())} infinite ones"
        raise InputError(
            f"scores: expected finite numbers, found {found}; leave these answers out."
        )
    return score, right


def _fit_line(score: Numbers, right: Labels, **settings: Any) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        # The solver says so when it hands over to a slower one, which a few answers with far-off scores can make it do.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(**_MOST_LIKELY, **settings).fit(score, right)
