"""From scored answers to the charts of the report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from aspire_guard.selection.arrays import Numbers
from aspire_guard.selection.calibration import Threshold
from aspire_guard.selection.metrics import RiskCoverageCurve, reliability_bins, risk_coverage_curve
from aspire_guard.selection.report import charts
from aspire_guard.selection.report.charts import Line, Mark
from aspire_guard.selection.report.reliability_data import Confidences
from aspire_guard.selection.risk_control.fixed_sequence import risk_upper_bound
from aspire_guard.selection.scored_answers import ScoredAnswers

SCORE_NAMES = {
    "selection_score": "selection score",
    "log_likelihood": "perplexity (log_likelihood)",
    "p_correct": "P(correct) alone (p_correct)",
}
COST_RATIOS = (2, 5, 10)

_ALPHA = 0.05
_MOST_POINTS = 300


def all_scores(answers: ScoredAnswers) -> dict[str, Numbers]:
    """The selection score and the baselines that every line has, `(n,)` each, by field."""
    baselines = {
        field: answers.baselines[field] for field in SCORE_NAMES if field in answers.baselines
    }
    return {"selection_score": answers.selection_score, **baselines}


def risk_chart(
    answers: ScoredAnswers, promised: Sequence[Threshold], test: ScoredAnswers | None
) -> str:
    """Risk over coverage with the pointwise Clopper–Pearson band and the guaranteed cuts."""
    curve = _thinned(risk_coverage_curve(answers.selection_score, answers.correct))
    low, high = clopper_pearson(curve.wrong, curve.released)
    # Several promises can lead to one cut; the strictest says it all.
    cuts = {cut.coverage: cut for cut in sorted(promised, key=lambda cut: -cut.target)}
    marks = [Mark(cut.coverage or 0.0, cut.risk or 0.0, cut.target) for cut in cuts.values()]
    tested = None
    if test is not None:
        its = _thinned(risk_coverage_curve(test.selection_score, test.correct))
        tested = Line("test answers", its.coverage, its.risk)
    return charts.risk_coverage(
        Line("calibration answers", curve.coverage, curve.risk), low, high, marks, tested
    )


def accuracy_chart(answers: ScoredAnswers) -> str:
    """Accuracy over coverage of the selection score and the baselines."""
    lines = []
    for field, scores in all_scores(answers).items():
        curve = _thinned(risk_coverage_curve(scores, answers.correct))
        lines.append(Line(SCORE_NAMES[field], curve.coverage, 1 - curve.risk))
    return charts.accuracy_coverage(lines)


def reliability_chart(confidences: Sequence[Confidences]) -> str:
    """Reliability before and after calibration, with counts."""
    return charts.reliability(
        [
            (each.short, reliability_bins(each.values, each.correct), each.values)
            for each in confidences
        ]
    )


def score_chart(answers: ScoredAnswers, promised: Sequence[Threshold]) -> str:
    """Histograms of the selection scores of right and of wrong answers."""
    cuts = {cut.selection_score for cut in promised if cut.selection_score is not None}
    score, right = answers.selection_score, answers.correct
    return charts.histogram(score[right], score[~right], sorted(cuts))


def cost_chart(answers: ScoredAnswers) -> str:
    """The mean cost of a question over coverage, in abstentions, for some costs of a wrong answer."""
    mean = 0.0 if answers.cost is None else float(answers.cost.mean())
    weight = np.ones(len(answers)) if answers.cost is None or not mean else answers.cost / mean
    score = answers.selection_score
    curve = risk_coverage_curve(score, answers.correct)
    paid = np.cumsum(np.where(answers.correct, 0.0, weight)[np.argsort(-score)])[curve.released - 1]
    n = len(answers)
    released, paid = np.append(0, curve.released), np.append(0.0, paid)
    kept = _places(len(released))
    return charts.cost(
        [
            Line(
                f"wrong costs {ratio} × abstaining",
                (released / n)[kept],
                ((ratio * paid + n - released) / n)[kept],
            )
            for ratio in COST_RATIOS
        ]
    )


def clopper_pearson(
    wrong: NDArray[np.int64], released: NDArray[np.int64], alpha: float = _ALPHA
) -> tuple[Numbers, Numbers]:
    """The exact two-sided interval of each risk, of level 1 − α, `(k,)` and `(k,)`."""
    return 1 - risk_upper_bound(released - wrong, released, alpha / 2), risk_upper_bound(
        wrong, released, alpha / 2
    )


def _thinned(curve: RiskCoverageCurve) -> RiskCoverageCurve:
    """At most some hundred points of a curve, close together where few answers are released."""
    kept = _places(len(curve.scores))
    return RiskCoverageCurve(curve.scores[kept], curve.released[kept], curve.wrong[kept])


def _places(k: int) -> NDArray[np.int64]:
    if k <= _MOST_POINTS:
        return np.arange(k)
    spread = np.append(
        np.linspace(0, k - 1, _MOST_POINTS * 2 // 3), np.geomspace(1, k, _MOST_POINTS // 3) - 1
    )
    return np.unique(spread.round().astype(np.int64))
