"""Calibration and thresholds: from labelled answers to a threshold that keeps its promise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aspire_guard.lazy_names import load_lazily

if TYPE_CHECKING:
    from aspire_guard.selection.calibration import Calibration, Threshold
    from aspire_guard.selection.calibrators.fit import fit_calibrator
    from aspire_guard.selection.calibrators.logistic import PlattCalibrator
    from aspire_guard.selection.metrics.bootstrap import bootstrap_difference
    from aspire_guard.selection.metrics.ranking import auroc
    from aspire_guard.selection.monitoring.risk_monitor import RiskMonitor
    from aspire_guard.selection.risk_control.policy_grid import StagedCosts
    from aspire_guard.selection.risk_control.staged_policy import choose_staged_policy
    from aspire_guard.selection.risk_control.thresholds import (
        choose_bands,
        choose_group_thresholds,
        choose_threshold,
    )
    from aspire_guard.selection.scored_answers import ScoredAnswers, read_scored
    from aspire_guard.selection.staged_answers import read_staged

__all__ = [
    "Calibration",
    "PlattCalibrator",
    "RiskMonitor",
    "ScoredAnswers",
    "StagedCosts",
    "Threshold",
    "auroc",
    "bootstrap_difference",
    "choose_bands",
    "choose_group_thresholds",
    "choose_staged_policy",
    "choose_threshold",
    "fit_calibrator",
    "read_scored",
    "read_staged",
]

_MODULES = {
    "Calibration": "aspire_guard.selection.calibration",
    "PlattCalibrator": "aspire_guard.selection.calibrators.logistic",
    "RiskMonitor": "aspire_guard.selection.monitoring.risk_monitor",
    "ScoredAnswers": "aspire_guard.selection.scored_answers",
    "StagedCosts": "aspire_guard.selection.risk_control.policy_grid",
    "Threshold": "aspire_guard.selection.calibration",
    "auroc": "aspire_guard.selection.metrics.ranking",
    "bootstrap_difference": "aspire_guard.selection.metrics.bootstrap",
    "choose_bands": "aspire_guard.selection.risk_control.thresholds",
    "choose_group_thresholds": "aspire_guard.selection.risk_control.thresholds",
    "choose_staged_policy": "aspire_guard.selection.risk_control.staged_policy",
    "choose_threshold": "aspire_guard.selection.risk_control.thresholds",
    "fit_calibrator": "aspire_guard.selection.calibrators.fit",
    "read_scored": "aspire_guard.selection.scored_answers",
    "read_staged": "aspire_guard.selection.staged_answers",
}

__getattr__, __dir__ = load_lazily(__name__, _MODULES)
