"""The fit of an evaluator's selection rule and confidence to labelled answers, without training its model.

The weights of the signals are those of a logistic regression whose weights can't be negative. Answers of every file
weigh the same in all, so that a large file does not decide alone. The confidence and the threshold are fitted on
scores of answers that the weights were not fitted on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from aspire_guard.evaluators.selection_rule import (
    SelectionRule,
    SignalName,
    SignalWeights,
    find_kind,
)
from aspire_guard.selection.calibration import Calibration, fit_calibration

_FOLDS = 5
_PENALTY = 0.02
# A rule needs this many right and wrong answers of a kind.
_LEAST_OF_A_LABEL = 20

_SIGNALS: dict[str, tuple[SignalName, ...]] = {
    "statement": ("support", "pairs", "explained", "lead", "log_p_correct"),
    "closed_book": ("log_likelihood", "log_p_correct"),
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
        return find_kind(self.signals, self.text)


@dataclass(frozen=True)
class FittedRule:
    """A rule, and the confidence that goes with it.

    Attributes:
        rule: the weights, fitted on all answers.
        calibration: the confidence and the threshold, fitted on `held_out_scores`.
        held_out_scores: the score of each answer under a rule that was fitted without its file, or without its group
            if there is only one file, `(n,)`.
    """

    rule: SelectionRule
    calibration: Calibration
    held_out_scores: NDArray[np.float64]


def fit_rule(
    answers: Sequence[MeasuredAnswer],
    phrase: SignalWeights,
    *,
    target_accuracy: float,
    calibrate_on: Sequence[str] = (),
) -> FittedRule:
    """Fit the weights of all kinds of answers, the confidence and the threshold.

    Args:
        answers: labelled answers.
        phrase: the weights of answers of a few words, which are not fitted. A kind with too few answers has them too.
        target_accuracy: the wanted share of right answers among the released ones.
        calibrate_on: the files that confidence and threshold are fitted on, or nothing for all files.
    """
    rule = fit_weights(answers, phrase)
    held_out_scores = _score_held_out(answers, phrase)
    chosen = [not calibrate_on or answer.file in calibrate_on for answer in answers]
    calibration = fit_calibration(
        held_out_scores[chosen],
        [answer.correct for answer, is_chosen in zip(answers, chosen, strict=True) if is_chosen],
        target_accuracy=target_accuracy,
        date=datetime.now(UTC).date().isoformat(),
    )
    return FittedRule(rule, calibration, held_out_scores)


def fit_weights(answers: Sequence[MeasuredAnswer], phrase: SignalWeights) -> SelectionRule:
    """Fit the weights of statements and of answers without a context; see `fit_rule`."""
    fitted: dict[str, SignalWeights] = {}
    for kind, names in _SIGNALS.items():
        members = [answer for answer in answers if answer.kind == kind]
        n_right = sum(answer.correct for answer in members)
        has_enough = min(n_right, len(members) - n_right) >= _LEAST_OF_A_LABEL
        fitted[kind] = _fit_kind(members, names) if has_enough else phrase
    return SelectionRule(phrase=phrase, **fitted)


def _score_held_out(
    answers: Sequence[MeasuredAnswer], phrase: SignalWeights
) -> NDArray[np.float64]:
    folds = _split(answers)
    scores = np.zeros(len(answers))
    for fold in set(folds):
        others = [answer for answer, own in zip(answers, folds, strict=True) if own != fold]
        rule = fit_weights(others, phrase)
        for i, answer in enumerate(answers):
            if folds[i] == fold:
                scores[i] = rule.score(answer.signals, answer.text)
    return scores


def _split(answers: Sequence[MeasuredAnswer]) -> list[str]:
    """Name the fold of each answer: its file, or some of the groups if there is only one file."""
    files = [answer.file for answer in answers]
    if len(set(files)) > 1:
        return files
    groups = list(dict.fromkeys(answer.group for answer in answers))
    folds = {group: str(number % _FOLDS) for number, group in enumerate(groups)}
    return [folds[answer.group] for answer in answers]


def _fit_kind(answers: Sequence[MeasuredAnswer], names: tuple[SignalName, ...]) -> SignalWeights:
    """Fit a logistic regression without negative weights."""
    values = np.array([[answer.signals[name] for name in names] for answer in answers])
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
