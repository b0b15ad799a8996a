"""The rows of the report's tables: thresholds with their outcomes on test answers, and scores with their metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from aspire_guard.errors import InputError
from aspire_guard.selection.arrays import Labels, Numbers
from aspire_guard.selection.calibration import Calibration, Threshold
from aspire_guard.selection.metrics import Interval, Metric, auacc, auroc, bootstrap_interval
from aspire_guard.selection.report.figures import SCORE_NAMES, clopper_pearson
from aspire_guard.selection.risk_control.thresholds import UnmetTarget
from aspire_guard.selection.scored_answers import ScoredAnswers

# The bootstrap would take too long on more answers.
MAX_RESAMPLED = 20_000

_RESAMPLES = 200


class Outcome(NamedTuple):
    """The outcome of a threshold on test answers.

    Attributes:
        n: the number of test answers that the threshold applies to.
        released: how many of them it releases.
        wrong: how many of the released answers are wrong.
        low: the lower end of the exact 95 % interval of the risk, or None if it releases nothing.
        high: the upper end of that interval, or None if it releases nothing.
    """

    n: int
    released: int
    wrong: int
    low: float | None
    high: float | None

    @property
    def risk(self) -> float | None:
        """The share of wrong answers among the released ones, or None if it releases nothing."""
        return self.wrong / self.released if self.released else None

    @property
    def coverage(self) -> float | None:
        """The share of the answers that is released, or None if there are no answers."""
        return self.released / self.n if self.n else None

    def verdict(self, promised: float) -> str:
        """Say how the risk compares with a promised risk."""
        if self.risk is None or self.low is None:
            return "none released"
        if self.risk <= promised:
            return "kept"
        return "above, as chance allows" if self.low <= promised else "above"


class ThresholdRow(NamedTuple):
    """A threshold, or the reason why there is no threshold.

    Attributes:
        name: the target, or the band.
        threshold: the threshold, or None if none was found.
        missing: a sentence that says what could be promised instead, or None if there is a threshold.
        outcome: the outcome on test answers, or None without test answers.
    """

    name: str
    threshold: Threshold | None
    missing: str | None
    outcome: Outcome | None


class ScoreRow(NamedTuple):
    """The ranking metrics of a score.

    A metric is a plain number if the answers are too many to resample, and None if the answers can't be ranked.
    """

    name: str
    auroc: Interval | float | None
    auacc: Interval | float | None


def make_target_rows(
    thresholds: Mapping[str, Threshold | UnmetTarget],
    calibration: Calibration,
    test: ScoredAnswers | None,
) -> list[ThresholdRow]:
    """Return a row for each target risk."""
    rows = []
    for name, threshold in thresholds.items():
        if isinstance(threshold, UnmetTarget):
            rows.append(ThresholdRow(name, None, threshold.sentence, None))
            continue
        outcome = None
        if test is not None:
            all_answers = np.ones(len(test), dtype=np.bool_)
            outcome = measure_outcome(threshold, calibration, test, all_answers)
        rows.append(ThresholdRow(name, threshold, None, outcome))
    return rows


def make_evaluator_rows(calibration: Calibration, test: ScoredAnswers | None) -> list[ThresholdRow]:
    """Return a row for each threshold that the evaluator already has."""
    rows = []
    for threshold in calibration.thresholds:
        name = threshold.name
        if threshold.group is not None:
            name += f", group {threshold.group}"
        outcome = None
        if test is not None:
            members = _find_members(threshold, calibration, test)
            outcome = measure_outcome(threshold, calibration, test, members)
        if threshold.releases:
            rows.append(ThresholdRow(name, threshold, None, outcome))
        else:
            # A threshold of 1 has no risk to show.
            unmet = f"the {threshold.objective} of {threshold.target:g}"
            missing = f"releases nothing: no threshold met {unmet}"
            rows.append(ThresholdRow(name, None, missing, outcome))
    return rows


def make_score_rows(scores: Mapping[str, Numbers], correct: Labels) -> list[ScoreRow]:
    """Return AUROC and AUACC of each score `(n,)`, with bootstrap intervals on the same resamples."""
    rows = []
    for field, values in scores.items():
        auroc_interval = _compute(auroc, values, correct)
        auacc_interval = _compute(auacc, values, correct)
        rows.append(ScoreRow(SCORE_NAMES[field], auroc_interval, auacc_interval))
    return rows


def measure_outcome(
    threshold: Threshold, calibration: Calibration, test: ScoredAnswers, members: Labels
) -> Outcome:
    """Return the outcome of a threshold on the test answers that it applies to.

    Args:
        members: marks the answers that the threshold applies to, `(n,)`.
    """
    confidences = calibration.calibrator.confidences(test.selection_score)  # (n,)
    released = members & (confidences >= threshold.confidence)
    member_count = int(members.sum())
    released_count = int(released.sum())
    wrong_count = int((released & ~test.correct).sum())
    if released_count == 0:
        return Outcome(member_count, 0, 0, None, None)
    low, high = clopper_pearson(np.array([wrong_count]), np.array([released_count]))
    return Outcome(member_count, released_count, wrong_count, float(low[0]), float(high[0]))


def _compute(metric: Metric, scores: Numbers, correct: Labels) -> Interval | float | None:
    try:
        if len(scores) > MAX_RESAMPLED:
            return metric(scores, correct)
        return bootstrap_interval(metric, scores, correct, resamples=_RESAMPLES)
    except InputError:  # All answers are right or all are wrong, so there is nothing to rank.
        return None


def _find_members(threshold: Threshold, calibration: Calibration, answers: ScoredAnswers) -> Labels:
    """Mark the answers of a threshold's group, `(n,)`.

    A threshold without a group applies to every group that has no threshold of its own.
    """
    groups = np.array(answers.group or ("",) * len(answers), dtype=object)
    if threshold.group is not None:
        return np.asarray(groups == threshold.group, dtype=np.bool_)
    same_band = [each for each in calibration.thresholds if each.name == threshold.name]
    own_groups = {each.group for each in same_band if each.group is not None}
    return np.array([group not in own_groups for group in groups], dtype=np.bool_)
