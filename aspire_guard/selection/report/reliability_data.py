"""Confidences before and after calibration, on answers that the calibrator has not seen where that is possible."""

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
        short: a name for a legend.
        origin: where they come from, for a sentence.
        values: in [0, 1].
        correct: whether each answer is right.
    """

    short: str
    origin: str
    values: Numbers
    correct: Labels


def before_and_after(
    answers: ScoredAnswers, calibration: Calibration, test: ScoredAnswers | None
) -> tuple[Confidences, ...]:
    """The confidences before calibration, where there are any, and after it; of the test answers if given."""
    judged = answers if test is None else test
    before = []
    if (
        judged.confidence is not None
        and judged.confidence.min() >= 0
        and judged.confidence.max() <= 1
    ):
        values, origin = judged.confidence, "the confidence in the lines"
        before = [Confidences("before", origin, values, judged.correct)]
    elif judged.selection_score.max() <= 0:
        values, origin = (
            np.exp(judged.selection_score),
            "the exponential of the selection score, a log-probability",
        )
        before = [Confidences("before", origin, values, judged.correct)]
    return (*before, _after(answers, calibration, test))


def _after(
    answers: ScoredAnswers, calibration: Calibration, test: ScoredAnswers | None
) -> Confidences:
    method = calibration.calibrator.method
    if test is not None:
        values = calibration.calibrator.confidences(test.selection_score)
        return Confidences("after", f"{method} on the test answers", values, test.correct)
    score, right = answers.selection_score, answers.correct
    if (calibration.source, calibration.n) != (answers.source, len(answers)):
        values = calibration.calibrator.confidences(score)
        return Confidences("after", f"{method} fitted on other answers", values, right)
    if min(right.sum(), (~right).sum()) < 2 * _FOLDS:
        values = calibration.calibrator.confidences(score)
        return Confidences(
            "after",
            f"{method} on the very answers it was fitted on, which flatters it",
            values,
            right,
        )
    from sklearn.model_selection import StratifiedKFold

    values = np.empty_like(score)
    for kept, held_out in StratifiedKFold(_FOLDS, shuffle=True, random_state=0).split(score, right):
        fitted = fit_calibrator(score[kept], right[kept], method=method)
        values[held_out] = fitted.calibrator.confidences(score[held_out])
    return Confidences("after", f"{method}, cross-validated in {_FOLDS} folds", values, right)
