"""The rows of the report's tables: thresholds, what they came to on test answers, and how well each score ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from aspire_guard.errors import InputError
from aspire_guard.selection.arrays import Labels, Numbers
from aspire_guard.selection.calibration import Calibration, Threshold
from aspire_guard.selection.metrics import Interval, Metric, auacc, auroc, bootstrap_interval
from aspire_guard.selection.report.figures import SCORE_NAMES, clopper_pearson
from aspire_guard.selection.risk_control.thresholds import NoThreshold
from aspire_guard.selection.scored_answers import ScoredAnswers

MOST_RESAMPLED = 20_000

_RESAMPLES = 200


class Realised(NamedTuple):
    """What a threshold came to on test answers.

    Attributes:
        n: the test answers it is for.
        released: how many of them it releases.
        wrong: how many of these are wrong.
        low: the lower end of the exact 95 % interval of the risk; None where nothing is released.
        high: its upper end.
    """

    n: int
    released: int
    wrong: int
    low: float | None
    high: float | None

    @property
    def risk(self) -> float | None:
        """The share of wrong answers among the released ones; None where nothing is released."""
        return self.wrong / self.released if self.released else None

    @property
    def coverage(self) -> float | None:
        """The share of the answers that is released; None where there are none."""
        return self.released / self.n if self.n else None

    def verdict(self, promised: float) -> str:
        """How the risk compares with a promised one."""
        if self.risk is None or self.low is None:
            return "none released"
        if self.risk <= promised:
            return "kept"
        return "above, as chance allows" if self.low <= promised else "above"


class Row(NamedTuple):
    """One threshold, or why there is none.

    Attributes:
        name: what was asked for, or which band it is.
        found: the threshold; None where there is none.
        missing: what could be promised instead, in a sentence; None where there is a threshold.
        realised: what it came to on test answers; None without these.
    """

    name: str
    found: Threshold | None
    missing: str | None
    realised: Realised | None


def asked_rows(
    found: Mapping[str, Threshold | NoThreshold],
    calibration: Calibration,
    test: ScoredAnswers | None,
) -> list[Row]:
    """A row for each target risk."""
    rows = []
    for name, item in found.items():
        if isinstance(item, Threshold):
            whole = None if test is None else np.ones(len(test), dtype=np.bool_)
            rows.append(Row(name, item, None, realised(item, calibration, test, whole)))
        else:
            rows.append(Row(name, None, item.sentence, None))
    return rows


def own_rows(calibration: Calibration, test: ScoredAnswers | None) -> list[Row]:
    """A row for each threshold that the evaluator has already."""
    rows = []
    for cut in calibration.thresholds:
        name = cut.name if cut.group is None else f"{cut.name}, group {cut.group}"
        # Closed by name: a threshold of 1 has no risk to speak of.
        missing = (
            None
            if cut.releases
            else f"releases nothing: no threshold met the {cut.objective} of {cut.target:g}"
        )
        members = None if test is None else _members(cut, calibration, test)
        rows.append(
            Row(
                name,
                cut if cut.releases else None,
                missing,
                realised(cut, calibration, test, members),
            )
        )
    return rows


def realised(
    cut: Threshold, calibration: Calibration, test: ScoredAnswers | None, members: Labels | None
) -> Realised | None:
    """What a threshold came to on those test answers that it is for, `(n,)`; None without test answers."""
    if test is None or members is None:
        return None
    released = members & (
        calibration.calibrator.confidences(test.selection_score) >= cut.confidence
    )
    m, wrong = int(released.sum()), int((released & ~test.correct).sum())
    if not m:
        return Realised(int(members.sum()), 0, 0, None, None)
    low, high = clopper_pearson(np.array([wrong]), np.array([m]))
    return Realised(int(members.sum()), m, wrong, float(low[0]), float(high[0]))


class ScoreRow(NamedTuple):
    """How well one score ranks; intervals are None where the answers are too many to resample, or can't be ranked."""

    name: str
    auroc: Interval | float | None
    auacc: Interval | float | None


def score_rows(scores: Mapping[str, Numbers], correct: Labels) -> list[ScoreRow]:
    """AUROC and AUACC of each score `(n,)`, with bootstrap intervals on the same resamples."""
    return [
        ScoreRow(
            SCORE_NAMES[field], _metric(auroc, values, correct), _metric(auacc, values, correct)
        )
        for field, values in scores.items()
    ]


def _metric(metric: Metric, scores: Numbers, correct: Labels) -> Interval | float | None:
    try:
        if len(scores) > MOST_RESAMPLED:
            return metric(scores, correct)
        return bootstrap_interval(metric, scores, correct, resamples=_RESAMPLES)
    except InputError:  # all right or all wrong: nothing to rank
        return None


def _members(cut: Threshold, calibration: Calibration, answers: ScoredAnswers) -> Labels:
    """Which answers a threshold is for: those of its group, or of every group that has none of its own."""
    groups = np.array(answers.group or ("",) * len(answers), dtype=object)
    if cut.group is not None:
        return np.asarray(groups == cut.group, dtype=np.bool_)
    others = [
        each.group
        for each in calibration.thresholds
        if each.name == cut.name and each.group is not None
    ]
    return np.array([group not in others for group in groups], dtype=np.bool_)
