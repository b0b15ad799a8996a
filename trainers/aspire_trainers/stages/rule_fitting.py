"""The fit of an evaluator's selection rule and confidence to labelled answers, without training its model.

The weights of the signals are those of a logistic regression whose weights can't be negative. Answers of every file
weigh the same in all, so that a large file does not decide alone. The confidence and the threshold are fitted on
scores of answers that the weights were not fitted on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from aspire_guard.errors import InputError
from aspire_guard.evaluators.selection_rule import (
    AnswerKind,
    SelectionRule,
    SignalName,
    SignalWeights,
    find_kind,
)
from aspire_guard.selection.calibration import Calibration, fit_calibration
from aspire_guard.selection.calibrators import PlattCalibrator

_FOLDS = 5
_PENALTY = 0.02
# A rule needs this many right and wrong answers of a kind.
_LEAST_OF_A_LABEL = 20

SignalNames = Mapping[AnswerKind, tuple[SignalName, ...]]

# The signals of the answers of each kind, by the reach of θs. P(z_c) of a θs that was trained on a small model's short
# answers is not among them over a context: without it, answers of every file that was held out are ranked better.
SIGNALS: Mapping[str, SignalNames] = {
    "suffix": {
        "over_context": ("support", "explained", "lead"),
        "closed_book": ("log_likelihood", "log_p_correct"),
    },
    "all": {
        "over_context": ("support", "explained", "claims_correct"),
        "closed_book": ("log_likelihood", "claims_correct"),
    },
}


@dataclass(frozen=True)
class MeasuredAnswer:
    """A labelled answer with its signals.

    Attributes:
        text: its plain text.
        signals: the signals, by their names.
        correct: True if it is right.
        file: the file that it comes from.
        group: the answers of the file that depend on each other.
    """

    text: str
    signals: dict[str, float]
    correct: bool
    file: str
    group: str

    @property
    def kind(self) -> str:
        """The kind of the answer, which decides its weights."""
        return find_kind(self.signals)


@dataclass(frozen=True)
class FittedRule:
    """A rule, and the confidence that goes with it.

    Attributes:
        rule: the weights, fitted on all answers.
        calibration: the confidence and the threshold, fitted on `held_out_scores`.
        held_out_scores: the score of each answer under weights that were fitted without its group, `(n,)`.
    """

    rule: SelectionRule
    calibration: Calibration
    held_out_scores: NDArray[np.float64]


def fit_rule(
    answers: Sequence[MeasuredAnswer],
    default: SignalWeights,
    *,
    target_accuracy: float,
    names: SignalNames = SIGNALS["suffix"],
    calibrate_on: Sequence[str] = (),
) -> FittedRule:
    """Fit the weights of each kind of answers, the confidence and the threshold.

    Args:
        answers: labelled answers.
        default: the log-odds that an answer of a kind with too few labels is right. Its confidence stays what these
            weights say.
        target_accuracy: the wanted share of right answers among the released ones.
        names: the signals of each kind of answers.
        calibrate_on: the files that confidence and threshold are fitted on, or nothing for all files.

    Raises:
        InputError: there are too few right or wrong answers to fit any weights, or the signals tell nothing.
    """
    weights = _fit_weights(answers, names)
    if not weights:
        raise InputError(
            f"expected at least {_LEAST_OF_A_LABEL} right and as many wrong answers of a kind, "
            f"found fewer among {len(answers)}; rate more answers"
        )
    held_out = _score_held_out(answers, names)
    chosen = [
        i
        for i, answer in enumerate(answers)
        if i in held_out and (not calibrate_on or answer.file in calibrate_on)
    ]
    calibration = fit_calibration(
        [held_out[i] for i in chosen],
        [answers[i].correct for i in chosen],
        target_accuracy=target_accuracy,
        date=datetime.now(UTC).date().isoformat(),
    )
    assert isinstance(calibration.calibrator, PlattCalibrator)
    if calibration.calibrator.slope <= 0:
        raise InputError(
            f"expected signals that tell right from wrong answers, found that they don't on {len(chosen)} answers that "
            "the weights were not fitted on; check the labels, or rate more answers"
        )
    unfitted = _undo_calibration(default, calibration.calibrator)
    rule = SelectionRule(
        over_context=weights.get("over_context", unfitted),
        closed_book=weights.get("closed_book", unfitted),
    )
    scores = np.array(
        [
            held_out[i] if i in held_out else rule.score(answer.signals)
            for i, answer in enumerate(answers)
        ]
    )
    return FittedRule(rule, calibration, scores)


def _undo_calibration(weights: SignalWeights, calibrator: PlattCalibrator) -> SignalWeights:
    """Return the weights whose score the calibrator turns into the log-odds of the given weights."""
    slope = calibrator.slope
    return SignalWeights(
        weights={name: weight / slope for name, weight in weights.weights.items()},
        intercept=(weights.intercept - calibrator.intercept) / slope,
    )


def _fit_weights(answers: Sequence[MeasuredAnswer], names: SignalNames) -> dict[str, SignalWeights]:
    """Fit the weights of each kind that has enough answers."""
    fitted: dict[str, SignalWeights] = {}
    for kind, kind_names in names.items():
        members = [answer for answer in answers if answer.kind == kind]
        n_right = sum(answer.correct for answer in members)
        if min(n_right, len(members) - n_right) >= _LEAST_OF_A_LABEL:
            fitted[kind] = fit_signal_weights(members, kind_names)
    return fitted


def _score_held_out(answers: Sequence[MeasuredAnswer], names: SignalNames) -> dict[int, float]:
    """Score the answers of all fitted kinds under weights that were fitted without their fold, by their positions."""
    folds = _split(answers)
    scores: dict[int, float] = {}
    for fold in dict.fromkeys(folds):
        others = [answer for answer, own in zip(answers, folds, strict=True) if own != fold]
        weights = _fit_weights(others, names)
        for i, answer in enumerate(answers):
            if folds[i] == fold and answer.kind in weights:
                scores[i] = weights[answer.kind].score(answer.signals)
    return scores


def _split(answers: Sequence[MeasuredAnswer]) -> list[int]:
    """Number the fold of each answer. The answers of a group are in the same fold."""
    groups = list(dict.fromkeys((answer.file, answer.group) for answer in answers))
    folds = {group: number % _FOLDS for number, group in enumerate(groups)}
    return [folds[answer.file, answer.group] for answer in answers]


def fit_signal_weights(
    answers: Sequence[MeasuredAnswer], names: tuple[SignalName, ...]
) -> SignalWeights:
    """Fit a logistic regression without negative weights, in which every file weighs the same."""
    rows: list[list[float]] = []
    for answer in answers:
        rows.append([answer.signals[name] for name in names])
    values = np.array(rows)  # (answers, signals)
    signs = np.array([1.0 if answer.correct else -1.0 for answer in answers])
    files = [answer.file for answer in answers]
    n_files = len(set(files))
    shares = np.array([1 / files.count(file) / n_files for file in files])
    center, scale = values.mean(0), values.std(0) + 1e-9
    scaled = (values - center) / scale  # (answers, signals)

    def compute_loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights, intercept = parameters[:-1], parameters[-1]
        margins = signs * (scaled @ weights + intercept)
        loss = shares @ np.logaddexp(0, -margins) + _PENALTY * weights @ weights
        slopes = -shares * signs / (1 + np.exp(margins))
        gradient = np.append(scaled.T @ slopes + 2 * _PENALTY * weights, slopes.sum())
        return float(loss), gradient

    bounds = [(0, None)] * len(names) + [(None, None)]
    start = np.append(np.full(len(names), 0.3), 0.0)
    solution = minimize(compute_loss, start, jac=True, bounds=bounds, method="L-BFGS-B").x
    weights = solution[:-1] / scale
    intercept = float(solution[-1] - weights @ center)
    return SignalWeights(
        weights=dict(zip(names, weights.round(6).tolist(), strict=True)),
        intercept=round(intercept, 6),
    )
