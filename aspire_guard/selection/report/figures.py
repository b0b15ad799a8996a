"""The numbers behind the charts of the report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aspire_guard.selection.arrays import Counts, Numbers
from aspire_guard.selection.calibration import Threshold
from aspire_guard.selection.metrics import RiskCoverageCurve, reliability_bins, risk_coverage_curve
from aspire_guard.selection.report import charts
from aspire_guard.selection.report.charts import GuaranteedPoint, Line, ReliabilityDiagram
from aspire_guard.selection.report.reliability_data import Confidences
from aspire_guard.selection.risk_control.fixed_sequence import risk_upper_bound
from aspire_guard.selection.scored_answers import ScoredAnswers

SCORE_NAMES = {
    "selection_score": "selection score",
    "log_likelihood": "perplexity (log_likelihood)",
    "p_correct": "P(correct) alone (p_correct)",
}
# Costs of a wrong answer, as multiples of the cost of an abstention.
COST_RATIOS = (2, 5, 10)

_ALPHA = 0.05
_MAX_POINTS = 300


def collect_scores(answers: ScoredAnswers) -> dict[str, Numbers]:
    """Return the selection score and the baselines that every line has, `(n,)` each, by field name."""
    scores = {"selection_score": answers.selection_score}
    for field in SCORE_NAMES:
        if field in answers.baselines:
            scores[field] = answers.baselines[field]
    return scores


def make_risk_chart(
    answers: ScoredAnswers, promised: Sequence[Threshold], test: ScoredAnswers | None
) -> str:
    """Chart risk over coverage, with the pointwise Clopper–Pearson band and the thresholds with a guarantee."""
    curve = _thin_out(risk_coverage_curve(answers.selection_score, answers.correct))
    low, high = clopper_pearson(curve.wrong, curve.released)
    calibration_line = Line("calibration answers", curve.coverage, curve.risk)
    test_line = None
    if test is not None:
        test_curve = _thin_out(risk_coverage_curve(test.selection_score, test.correct))
        test_line = Line("test answers", test_curve.coverage, test_curve.risk)
    # Several promises can end in the same threshold. The strictest promise, which comes last, implies the others.
    least_strict_first = sorted(promised, key=lambda threshold: -threshold.target)
    by_coverage = {threshold.coverage: threshold for threshold in least_strict_first}
    points = [
        GuaranteedPoint(threshold.coverage or 0.0, threshold.risk or 0.0, threshold.target)
        for threshold in by_coverage.values()
    ]
    return charts.draw_risk_coverage(calibration_line, low, high, points, test_line)


def make_accuracy_chart(answers: ScoredAnswers) -> str:
    """Chart accuracy over coverage for the selection score and the baselines."""
    lines = []
    for field, scores in collect_scores(answers).items():
        curve = _thin_out(risk_coverage_curve(scores, answers.correct))
        lines.append(Line(SCORE_NAMES[field], curve.coverage, 1 - curve.risk))
    return charts.draw_accuracy_coverage(lines)


def make_reliability_chart(confidences: Sequence[Confidences]) -> str:
    """Chart the reliability of each set of confidences, with counts."""
    diagrams = []
    for each in confidences:
        bins = reliability_bins(each.values, each.correct)
        diagrams.append(ReliabilityDiagram(each.name, bins, each.values))
    return charts.draw_reliability(diagrams)


def make_score_chart(answers: ScoredAnswers, promised: Sequence[Threshold]) -> str:
    """Chart the selection scores of right and of wrong answers, with the thresholds."""
    positions = {
        threshold.selection_score for threshold in promised if threshold.selection_score is not None
    }
    right = answers.selection_score[answers.correct]
    wrong = answers.selection_score[~answers.correct]
    return charts.draw_score_histogram(right, wrong, sorted(positions))


def make_cost_chart(answers: ScoredAnswers) -> str:
    """Chart the mean cost of a question over coverage, in abstentions, for each of `COST_RATIOS`."""
    n = len(answers)
    score = answers.selection_score
    curve = risk_coverage_curve(score, answers.correct)
    wrong_cost = np.where(answers.correct, 0.0, _compute_cost_weights(answers))  # (n,)
    highest_first = np.argsort(-score)
    cumulative_cost = np.cumsum(wrong_cost[highest_first])  # (n,), of the best 1, 2, …, n answers
    # The first point is the threshold that releases nothing.
    released = np.append(0, curve.released)  # (k + 1,)
    released_cost = np.append(0.0, cumulative_cost[curve.released - 1])  # (k + 1,)
    kept = _choose_points(len(released))
    lines = []
    for ratio in COST_RATIOS:
        coverage = released / n
        mean_cost = (ratio * released_cost + n - released) / n
        lines.append(Line(f"wrong costs {ratio} × abstaining", coverage[kept], mean_cost[kept]))
    return charts.draw_cost(lines)


def clopper_pearson(wrong: Counts, released: Counts) -> tuple[Numbers, Numbers]:
    """Return the lower and the upper end of the exact two-sided 95 % interval of each risk, `(k,)` each."""
    low = 1 - risk_upper_bound(released - wrong, released, _ALPHA / 2)
    high = risk_upper_bound(wrong, released, _ALPHA / 2)
    return low, high


def _compute_cost_weights(answers: ScoredAnswers) -> Numbers:
    """Return the cost of each answer relative to the mean cost, `(n,)`, or ones if no answer costs anything."""
    if answers.cost is None:
        return np.ones(len(answers))
    mean_cost = float(answers.cost.mean())
    return answers.cost / mean_cost if mean_cost else np.ones(len(answers))


def _thin_out(curve: RiskCoverageCurve) -> RiskCoverageCurve:
    """Keep a few hundred points of a curve, which are densest at low coverage."""
    kept = _choose_points(len(curve.scores))
    return RiskCoverageCurve(curve.scores[kept], curve.released[kept], curve.wrong[kept])


def _choose_points(count: int) -> Counts:
    """Return the indices of at most `_MAX_POINTS` points of a curve."""
    if count <= _MAX_POINTS:
        return np.arange(count)
    even = np.linspace(0, count - 1, _MAX_POINTS * 2 // 3)
    dense_at_start = np.geomspace(1, count, _MAX_POINTS // 3) - 1
    return np.unique(np.append(even, dense_at_start).round().astype(np.int64))
