"""The paper's table in figures: how well each score ranks the answers, what it costs, and how far apart two are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from pydantic import BaseModel, ConfigDict

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
    """A metric, or a difference of two, with its bootstrap 95 % interval."""

    value: float
    low: float
    high: float


class Cost(_Part):
    """What a score costs an answer, beyond the answer itself.

    Attributes:
        generations: further answers that are drawn.
        forward_passes: of the answering model, beside generations.
        tokens: forward-token equivalents, the mean over the answers: tokens whose forward pass is run, each
            generated token counting one.
    """

    generations: int
    forward_passes: int
    tokens: float


class Differences(_Part):
    """How much higher one score's metrics are than another's, questions resampled jointly.

    Attributes:
        auroc: None where one of the two is undefined.
        auacc: of accuracy over coverage.
        aurc: of risk over coverage; below zero where the first is better.
        accuracy: of all answers; 0 where both rank the same answers.
    """

    auroc: Estimate | None
    auacc: Estimate
    aurc: Estimate
    accuracy: Estimate


class ScoreReport(_Part):
    """How well one score ranks the answers, and its price.

    Attributes:
        auroc: None where all answers are right or all are wrong.
        auacc: the mean over n of the accuracy of the n highest-scored answers.
        aurc: 1 − AUACC, the mean over n of the risk of the n highest-scored answers.
        cost: beyond the answer itself.
        aspire_minus: how far ASPIRE is ahead on the same answers; None for ASPIRE itself.
    """

    auroc: Estimate | None
    auacc: Estimate
    aurc: Estimate
    cost: Cost
    aspire_minus: Differences | None = None


class Block(_Part):
    """Scores of the same answers.

    Attributes:
        accuracy: of all answers.
        answer_tokens: forward-token equivalents of an answer: its prompt, and each generated token once a beam.
        scores: by the score's name.
    """

    accuracy: Estimate
    answer_tokens: float
    scores: dict[str, ScoreReport]


Ranking = tuple[Sequence[float], Sequence[bool]]


def score_report(ranking: Ranking, cost: Cost, aspire: Ranking | None = None) -> ScoreReport:
    """The row of one score, compared with ASPIRE's where that is given."""
    scores, correct = ranking
    area = bootstrap_interval(auacc, scores, correct)
    return ScoreReport(
        auroc=_estimate(bootstrap_interval(auroc, scores, correct))
        if len(set(correct)) == 2
        else None,
        auacc=_estimate(area),
        aurc=Estimate(
            value=1 - area.value, low=1 - area.high, high=1 - area.low
        ),  # AURC = 1 − AUACC
        cost=cost,
        aspire_minus=differences(aspire, ranking) if aspire else None,
    )


def accuracy_of_all(correct: Sequence[bool]) -> Estimate:
    """The share of right answers; no score has a part in it."""
    return _estimate(
        bootstrap_interval(lambda _, drawn: accuracy(drawn), [0.0] * len(correct), correct)
    )


def differences(first: Ranking, second: Ranking) -> Differences:
    """The metrics of the first ranking minus those of the second, question by question."""

    def difference(metric: Metric) -> Estimate:
        return _estimate(bootstrap_difference(metric, first, second))

    defined = all(len(set(correct)) == 2 for _, correct in (first, second))
    area = difference(auacc)
    return Differences(
        auroc=difference(auroc) if defined else None,
        auacc=area,
        aurc=Estimate(value=-area.value, low=-area.high, high=-area.low),
        accuracy=difference(lambda _, correct: accuracy(correct)),
    )


def baseline_reports(
    suite: Suite,
    priced: Sequence[Mapping[str, ScoreWithCost]],
    correct: Sequence[bool],
    aspire: Ranking | None = None,
) -> dict[str, ScoreReport]:
    """The rows of a suite's baselines, given each answer's scores."""
    reports = {}
    for baseline in suite.baselines:
        column = [scores[baseline.name] for scores in priced]
        cost = Cost(
            generations=suite.samples if baseline.draws else 0,
            forward_passes=baseline.forward_passes,
            tokens=fmean(tokens for _, tokens in column),
        )
        reports[baseline.name] = score_report(
            ([score for score, _ in column], correct), cost, aspire
        )
    return reports


def _estimate(interval: Interval) -> Estimate:
    return Estimate(**interval._asdict())
