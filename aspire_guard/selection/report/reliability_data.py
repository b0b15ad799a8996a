"""Confidences before and after calibration, on answers that the calibrator has not seen if possible."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from aspire_guard.selection.arrays import Labels, Numbers
from aspire_guard.selection.calibration import Calibration
from aspire_guard.selection.calibrators import fit_calibrator
from aspire_guard.selection.scored_answers import ScoredAnswers

_FOLDS = 5


class Confidences(NamedTuple):
    """Confidences `(n,)` of labelled answers.

    Attributes:
        name: `before` or `after` calibration.
        origin: a phrase that says how the confidences were computed.
        values: the confidences, in [0, 1].
        correct: whether each answer is right.
    """

    name: str
    origin: str
    values: Numbers
    correct: Labels


def compare_confidences(
    answers: ScoredAnswers, calibration: Calibration, test: ScoredAnswers | None
) -> list[Confidences]:
    """Return the confidences before calibration, if there are any, and after it.

    They are those of the test answers if there are test answers, otherwise those of `answers`.
    """
    before = _get_confidences_before(answers if test is None else test)
    after = _compute_confidences_after(answers, calibration, test)
    return [after] if before is None else [before, after]


def _get_confidences_before(answers: ScoredAnswers) -> Confidences | None:
    """Return the confidences in the lines, or the exponentials of selection scores that are log-probabilities.

    Returns:
        The confidences, or None if there are neither confidences nor log-probabilities.
    """
    given = answers.confidence
    if given is not None and given.min() >= 0 and given.max() <= 1:
        return Confidences("before", "the confidence in the lines", given, answers.correct)
    if answers.selection_score.max() <= 0:
        origin = "the exponential of the selection score, a log-probability"
        return Confidences("before", origin, np.exp(answers.selection_score), answers.correct)
    return None


def _compute_confidences_after(
    answers: ScoredAnswers, calibration: Calibration, test: ScoredAnswers | None
) -> Confidences:
    calibrator = calibration.calibrator
    if test is not None:
        origin = f"{calibrator.method} on the test answers"
        values = calibrator.confidences(test.selection_score)
        return Confidences("after", origin, values, test.correct)
    fitted_on_these = (calibration.source, calibration.n) == (answers.source, len(answers))
    rarer_label_count = min(answers.correct.sum(), (~answers.correct).sum())
    if fitted_on_these and rarer_label_count >= 2 * _FOLDS:
        origin = f"{calibrator.method}, cross-validated in {_FOLDS} folds"
        values = _cross_validate(answers, calibration)
        return Confidences("after", origin, values, answers.correct)
    if fitted_on_these:
        answers_seen = "on the very answers it was fitted on, which flatters it"
    else:
        answers_seen = "fitted on other answers"
    values = calibrator.confidences(answers.selection_score)
    return Confidences("after", f"{calibrator.method} {answers_seen}", values, answers.correct)


def _cross_validate(answers: ScoredAnswers, calibration: Calibration) -> Numbers:
    """Return the confidence of each answer from a calibrator fitted on the other folds, `(n,)`."""
    from sklearn.model_selection import StratifiedKFold

    score, correct = answers.selection_score, answers.correct
    method = calibration.calibrator.method
    values = np.empty_like(score)
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
    for fitting, held_out in folds.split(score, correct):
        fitted = fit_calibrator(score[fitting], correct[fitting], method=method)
        values[held_out] = fitted.calibrator.confidences(score[held_out])
    return values
