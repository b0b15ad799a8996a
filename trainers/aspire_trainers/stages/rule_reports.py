"""The results of a fitted selection rule on answers that it was not fitted on, by file.

All intervals are bootstrap intervals for which whole groups are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from aspire_guard.evaluators.self_evaluator import selection_score
from aspire_guard.evaluators.signals import LOG_LIKELIHOOD, LOG_P_CORRECT, SUPPORT
from aspire_guard.selection.arrays import Labels, Numbers
from aspire_guard.selection.metrics import Metric, accuracy, auacc, auroc, bootstrap_interval
from aspire_trainers.evaluation.score_reports import Estimate
from aspire_trainers.stages.rule_fitting import FittedRule, MeasuredAnswer


class RankingReport(BaseModel):
    """The ranking of the answers by a score.

    Attributes:
        auroc: the AUROC, or None if all answers are right or all are wrong.
        auacc: the mean over n of the accuracy of the n highest-scored answers.
    """

    model_config = ConfigDict(frozen=True)

    auroc: Estimate | None
    auacc: Estimate


class FileReport(BaseModel):
    """The results on a file.

    Attributes:
        file: the name of the file.
        n: the number of answers.
        accuracy: the share of right answers.
        coverage: the share of answers that the threshold releases.
        selective_accuracy: the share of right answers among them, or None if nothing is released.
        scores: the ranking by the selection score ("aspire"), by g with one α ("one alpha"), by its two parts, and by
            the words found in the context.
    """

    model_config = ConfigDict(frozen=True)

    file: str
    n: int
    accuracy: Estimate
    coverage: float
    selective_accuracy: float | None
    scores: dict[str, RankingReport]


def report_files(
    answers: Sequence[MeasuredAnswer], fitted: FittedRule, *, alpha: float
) -> list[FileReport]:
    """Report the held-out results on each file.

    Args:
        answers: the answers that the rule was fitted to.
        fitted: the rule, with a held-out score of each answer.
        alpha: α of the evaluator's g.
    """
    reports: list[FileReport] = []
    for file in dict.fromkeys(answer.file for answer in answers):
        places = [i for i, answer in enumerate(answers) if answer.file == file]
        members = [answers[i] for i in places]
        scores = fitted.held_out_scores[places]
        confidences = fitted.calibration.calibrator.confidences(scores)
        released = confidences >= fitted.calibration.threshold
        correct = np.array([answer.correct for answer in members])
        groups = [answer.group for answer in members]
        columns = {"aspire": scores, **_list_other_scores(members, alpha)}
        reports.append(
            FileReport(
                file=file,
                n=len(members),
                accuracy=_estimate(_accuracy_of_all, scores, correct, groups),
                coverage=float(released.mean()),
                selective_accuracy=float(correct[released].mean()) if released.any() else None,
                scores={
                    name: _report_ranking(column, correct, groups)
                    for name, column in columns.items()
                },
            )
        )
    return reports


def _list_other_scores(answers: Sequence[MeasuredAnswer], alpha: float) -> dict[str, Numbers]:
    """Return the scores to compare with, as far as all answers have them."""
    likelihoods = np.array([answer.signals[LOG_LIKELIHOOD] for answer in answers])
    verdicts = np.array([answer.signals[LOG_P_CORRECT] for answer in answers])
    pairs = zip(likelihoods.tolist(), verdicts.tolist(), strict=True)
    columns = {
        "one alpha": np.array([selection_score(*pair, alpha) for pair in pairs]),
        "log-likelihood": likelihoods,
        "P(z_c)": verdicts,
    }
    if all(SUPPORT in answer.signals for answer in answers):
        columns["words found"] = np.array([answer.signals[SUPPORT] for answer in answers])
    return columns


def _report_ranking(scores: Numbers, correct: Labels, groups: Sequence[str]) -> RankingReport:
    roc = None
    if len(set(correct.tolist())) == 2:
        roc = _estimate(auroc, scores, correct, groups)
    return RankingReport(auroc=roc, auacc=_estimate(auacc, scores, correct, groups))


def _estimate(metric: Metric, scores: Numbers, correct: Labels, groups: Sequence[str]) -> Estimate:
    interval = bootstrap_interval(metric, scores, correct, questions=groups)
    return Estimate(value=interval.value, low=interval.low, high=interval.high)


def _accuracy_of_all(scores: Any, correct: Any) -> float:
    return accuracy(correct)
