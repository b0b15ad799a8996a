"""Fitting calibrators on labelled answers, and choosing among them by cross-validation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

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
AnyCalibrator = Annotated[
    PlattCalibrator | IsotonicCalibrator | TemperatureCalibrator | VennAbersCalibrator,
    Field(discriminator="method"),
]

_FOLDS = 5
_SEED = 0
_MAX_COMPARED = 100_000
# The penalty is so weak that it only keeps the line finite if scores separate right from wrong perfectly.
_SOLVER_SETTINGS: dict[str, Any] = {"C": 1e6, "solver": "newton-cholesky", "tol": 1e-8}
_TEMPERATURES = (1e-3, 1e3)


class Losses(NamedTuple):
    """The losses of one method on answers that it was not fitted on. Lower is better.

    Attributes:
        brier: the mean squared distance of the confidence from the outcome.
        log_loss: the mean negative log-likelihood of the outcome, in nats.
        ece: the expected calibration error over 15 bins of equal mass.
    """

    brier: float
    log_loss: float
    ece: float


class FittedCalibrator(NamedTuple):
    """A calibrator and the reason for its choice.

    Attributes:
        calibrator: the calibrator, fitted on all answers.
        comparison: the cross-validated losses of each method that was tried, empty if there were too few answers.
    """

    calibrator: AnyCalibrator
    comparison: dict[Method, Losses]


def fit_calibrator(
    scores: ArrayLike, correct: ArrayLike, *, method: Method | Literal["best"] = "best"
) -> FittedCalibrator:
    """Fit the confidence on labelled answers.

    `best` takes the method of least cross-validated Brier score: among all four, without temperature if a score is
    above 0 (no log-probability). Methods are compared on at most 100,000 answers, drawn at random, in five folds, and
    the method chosen is fitted on all answers. If fewer than ten of the compared answers are right, or fewer than ten
    are wrong, there is no comparison and Platt is best. If all answers are right, all are wrong, or there are no
    answers, every method gives one confidence to all: Laplace's (right + 1) / (n + 2).

    Args:
        scores: selection scores, `(n,)`, finite.
        correct: whether each answer is right, `(n,)`.
        method: the method to fit.

    Raises:
        InputError: unequal lengths, scores that are not finite, or a temperature for scores above 0.
    """
    score, right = _check_answers(scores, correct)
    if right.all() or not right.any():
        return FittedCalibrator(_fit_base_rate(right), {})
    highest = float(score.max())
    is_log_probability = highest <= 0
    if method == "temperature" and not is_log_probability:
        raise InputError(
            f"temperature: expected log-probabilities, which are at most 0, found a score of {highest:g}; "
            "choose another method."
        )
    methods: tuple[Method, ...]
    if method != "best":
        methods = (method,)
    elif is_log_probability:
        methods = METHODS
    else:
        methods = tuple(name for name in METHODS if name != "temperature")
    comparison = _compare_methods(methods, score, right)
    best = methods[0]
    if comparison:
        best = min(comparison, key=lambda name: comparison[name].brier)
    return FittedCalibrator(_FITS[best](score, right), comparison)


def _compare_methods(
    methods: tuple[Method, ...], score: Numbers, right: Labels
) -> dict[Method, Losses]:
    """Return the losses on held-out answers, or nothing if a fold could be left without right or wrong answers."""
    # scikit-learn takes a second to import, and only callers who fit come here.
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedKFold

    compared = np.random.default_rng(_SEED).permutation(right.size)[:_MAX_COMPARED]
    score, right = score[compared], right[compared]
    if min(right.sum(), (~right).sum()) < 2 * _FOLDS:
        return {}
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=_SEED)
    splits = list(folds.split(score, right))
    comparison: dict[Method, Losses] = {}
    for method in methods:
        confidence = np.empty_like(score)
        for fitted_on, held_out in splits:
            calibrator = _FITS[method](score[fitted_on], right[fitted_on])
            confidence[held_out] = calibrator.confidences(score[held_out])
        comparison[method] = Losses(
            brier=brier(confidence, right),
            log_loss=float(log_loss(right, confidence, labels=[False, True])),
            ece=ece(confidence, right),
        )
    return comparison


def _fit_platt(score: Numbers, right: Labels) -> PlattCalibrator:
    """Fit the most likely line. It is flat at the base rate if the scores rank the wrong way round or all tie."""
    middle, spread = float(score.mean()), float(score.std())
    if spread > 0:
        # The scores get unit spread, so that the penalty is equally weak, and the search equally short, on every scale.
        line = _fit_line((score[:, None] - middle) / spread, right)
        slope = float(line.coef_[0, 0]) / spread
        if slope > 0:
            intercept = float(line.intercept_[0]) - slope * middle
            return PlattCalibrator(slope=slope, intercept=intercept)
    return _fit_base_rate(right)


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
    # Odds that point the wrong way have no temperature: the highest gives ½ to every answer.
    inverse = max(float(line.coef_[0, 0]) / spread, 1 / high)
    return TemperatureCalibrator(temperature=max(1 / inverse, low))


def _fit_base_rate(right: Labels) -> PlattCalibrator:
    # Laplace's rule keeps the odds finite if all answers are right, all are wrong, or there are no answers.
    odds = (right.sum() + 1) / ((~right).sum() + 1)
    return PlattCalibrator(slope=0.0, intercept=math.log(odds))


_FITS: dict[Method, Callable[[Numbers, Labels], AnyCalibrator]] = {
    "platt": _fit_platt,
    "isotonic": _fit_isotonic,
    "temperature": _fit_temperature,
    "venn_abers": fit_venn_abers,
}


def _check_answers(scores: ArrayLike, correct: ArrayLike) -> tuple[Numbers, Labels]:
    if np.size(scores) == np.size(correct) == 0:
        return np.empty(0), np.empty(0, dtype=np.bool_)
    score, right = as_pair(scores, correct)
    n_infinite = int(np.isinf(score).sum())
    if n_infinite:
        raise InputError(
            f"scores: expected finite numbers, found {n_infinite} infinite ones; leave these answers out."
        )
    return score, right


def _fit_line(features: Numbers, right: Labels, **settings: Any) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        # The solver warns when it hands over to a slower one, which a few answers with far-off scores can cause.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(**_SOLVER_SETTINGS, **settings).fit(features, right)
