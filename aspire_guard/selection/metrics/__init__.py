"""Metrics of selective prediction: how well a score ranks right answers above wrong ones, and what a threshold buys.

Everywhere `scores` are selection scores, shape `(n,)`, higher if the answer is more likely right, and `correct`
tells whether each answer is right, shape `(n,)`, booleans or 0 and 1. Answers that tie have no order of
their own: no result depends on the order in which they are given.

Conventions: coverage is the share of answers that are released, selective risk the share of wrong answers among them.
AUACC is the mean over n of the accuracy of the n highest-scored answers, AURC = 1 − AUACC, and E-AURC is AURC minus
the least that any score could have at that error rate.
"""

from __future__ import annotations

from aspire_guard.selection.metrics.bootstrap import (
    Interval,
    Metric,
    bootstrap_difference,
    bootstrap_interval,
)
from aspire_guard.selection.metrics.curves import (
    RiskCoverageCurve,
    coverage_at_risk,
    risk_at_coverage,
    risk_coverage_curve,
)
from aspire_guard.selection.metrics.probability import ReliabilityBin, brier, ece, reliability_bins
from aspire_guard.selection.metrics.ranking import (
    OperatingPoint,
    accuracy,
    auacc,
    aurc,
    auroc,
    coverage_and_accuracy,
    e_aurc,
)

__all__ = [
    "Interval",
    "Metric",
    "OperatingPoint",
    "ReliabilityBin",
    "RiskCoverageCurve",
    "accuracy",
    "auacc",
    "aurc",
    "auroc",
    "bootstrap_difference",
    "bootstrap_interval",
    "brier",
    "coverage_and_accuracy",
    "coverage_at_risk",
    "e_aurc",
    "ece",
    "reliability_bins",
    "risk_at_coverage",
    "risk_coverage_curve",
]
