"""The figures of the paper's table: how well each score ranks the answers, its cost, and the differences of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from aspire_guard.selection.arrays import Labels, Numbers
from aspire_guard.selection.metrics import (
    Interval,
    Metric,
    accuracy,
    auacc,
    auroc,
    bootstrap_difference,
    bootstrap_interval,
)
from aspire_trainers.evaluation.baselines import ScoreWithCost, Suite


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Estimate(_Part):
    """A metric, or a difference of two metrics, with its bootstrap 95 % interval."""

    value: float
    low: float
    high: float


class Cost(_Part):
    """The cost of scoring an answer, beyond the answer itself.

    Attributes:
        generations: further answers that are drawn.
        forward_passes: forward passes of the answering model, besides generations.
        tokens: forward-token equivalents, the mean over the answers: tokens whose forward pass is run, each
            generated token counting one.
    """

    generations: int
    forward_passes: int
    tokens: float


class Differences(_Part):
    """The metrics of one score minus the metrics of another, with questions resampled jointly.

    Attributes:
        auroc: difference of the AUROC, or None if one of the two is undefined.
        auacc: difference of the area under accuracy over coverage.
        aurc: difference of the area under risk over coverage, below zero if the first score is better.
        accuracy: difference of the accuracy of all answers, 0 if both scores rank the same answers.
    """

    auroc: Estimate | None
    auacc: Estimate
    aurc: Estimate
    accuracy: Estimate


class ScoreReport(_Part):
    """The metrics of one score, and its cost.

    Attributes:
        auroc: the AUROC, or None if all answers are right or all are wrong.
        auacc: the mean over n of the accuracy of the n highest-scored answers.
        aurc: 1 − AUACC, the mean over n of the risk of the n highest-scored answers.
        cost: the cost beyond the answer itself.
        aspire_minus: ASPIRE's metrics minus this score's on the same answers, or None for ASPIRE itself.
    """

    auroc: Estimate | None
    auacc: Estimate
    aurc: Estimate
    cost: Cost
    aspire_minus: Differences | None = None


class ScoreTable(_Part):
    """Scores of the same answers.

    Attributes:
        accuracy: accuracy of all answers.
        answer_tokens: forward-token equivalents of an answer: its prompt, and each generated token once a beam.
        scores: the report of each score, by its name.
    """

    accuracy: Estimate
    answer_tokens: float
    scores: dict[str, ScoreReport]


class Ranking(NamedTuple):
    """Answers ranked by a score.

    Attributes:
        scores: the score of each answer.
        correct: for each answer, True if it is right.
    """

    scores: Sequence[float]
    correct: Sequence[bool]

    @property
    def has_both_labels(self) -> bool:
        """True if some answers are right and some are wrong, without which the AUROC is undefined."""
        return len(set(self.correct)) == 2


def report_score(ranking: Ranking, cost: Cost, aspire: Ranking | None = None) -> ScoreReport:
    """Report the metrics of one score, compared with ASPIRE's ranking if it is given."""
    area = bootstrap_interval(auacc, ranking.scores, ranking.correct)
    roc = None
    if ranking.has_both_labels:
        roc = _as_estimate(bootstrap_interval(auroc, ranking.scores, ranking.correct))
    return ScoreReport(
        auroc=roc,
        auacc=_as_estimate(area),
        # AURC = 1 − AUACC, and so are the ends of its interval.
        aurc=Estimate(value=1 - area.value, low=1 - area.high, high=1 - area.low),
        cost=cost,
        aspire_minus=compare_rankings(aspire, ranking) if aspire else None,
    )


def estimate_accuracy(correct: Sequence[bool]) -> Estimate:
    """Estimate the share of right answers, in which scores play no part."""
    no_scores = [0.0] * len(correct)
    return _as_estimate(bootstrap_interval(_accuracy_of_all, no_scores, correct))


def compare_rankings(first: Ranking, second: Ranking) -> Differences:
    """Return the first ranking's metrics minus the second's, paired by question."""

    def estimate_difference(metric: Metric) -> Estimate:
        return _as_estimate(bootstrap_difference(metric, first, second))

    is_roc_defined = first.has_both_labels and second.has_both_labels
    area = estimate_difference(auacc)
    return Differences(
        auroc=estimate_difference(auroc) if is_roc_defined else None,
        auacc=area,
        aurc=Estimate(value=-area.value, low=-area.high, high=-area.low),
        accuracy=estimate_difference(_accuracy_of_all),
    )


def report_baselines(
    suite: Suite,
    scored: Sequence[Mapping[str, ScoreWithCost]],
    correct: Sequence[bool],
    aspire: Ranking | None = None,
) -> dict[str, ScoreReport]:
    """Report the suite's baselines.

    Args:
        suite: the baselines.
        scored: the baselines' scores of each answer, by name.
        correct: for each answer, True if it is right.
        aspire: ASPIRE's ranking of the same answers, to compare with.
    """
    reports = {}
    for baseline in suite.baselines:
        column = [scores[baseline.name] for scores in scored]
        cost = Cost(
            generations=suite.samples if baseline.draws else 0,
            forward_passes=baseline.forward_passes,
            tokens=fmean(score.tokens for score in column),
        )
        ranking = Ranking([score.score for score in column], correct)
        reports[baseline.name] = report_score(ranking, cost, aspire)
    return reports


def _accuracy_of_all(scores: Numbers, correct: Labels) -> float:
    return accuracy(correct)


def _as_estimate(interval: Interval) -> Estimate:
    return Estimate(value=interval.value, low=interval.low, high=interval.high)
