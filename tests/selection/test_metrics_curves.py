"""Risk against coverage: hand-computed tables, the definition over every threshold, and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_curve

from aspire_guard.errors import InputError
from aspire_guard.selection.metrics import (
    aurc,
    coverage_and_accuracy,
    coverage_at_risk,
    risk_at_coverage,
    risk_coverage_curve,
)

Answers = list[tuple[float, bool]]

# Few different scores, so that most examples hold ties.
ANSWERS = st.lists(
    st.tuples(st.sampled_from([-math.inf, -1.5, 0.0, 0.25, 2.0]), st.booleans()),
    min_size=1,
    max_size=12,
)
SHARE = st.sampled_from([0.05, 0.1, 0.25, 1 / 3, 0.5, 0.75, 1.0])

SCORES = [0.1, 0.9, 0.5, 0.5, 0.7]
CORRECT = [0, 1, 1, 0, 1]


def test_the_curve_has_a_point_for_every_cut() -> None:
    """By hand: 0.9 right, 0.7 right, a tie of right and wrong at 0.5 that is released together, 0.1 wrong."""
    curve = risk_coverage_curve(SCORES, CORRECT)
    assert curve.scores.tolist() == [0.9, 0.7, 0.5, 0.1]
    assert curve.released.tolist() == [1, 2, 4, 5]
    assert curve.wrong.tolist() == [0, 0, 1, 2]
    assert curve.coverage.tolist() == [0.2, 0.4, 0.8, 1.0]
    assert curve.risk.tolist() == [0.0, 0.0, 0.25, 0.4]


@given(ANSWERS)
def test_the_curve_is_what_every_threshold_buys(answers: Answers) -> None:
    """Each different score has a point, with the coverage and 1 − accuracy of that threshold."""
    scores, correct = zip(*answers, strict=True)
    curve = risk_coverage_curve(scores, correct)
    assert curve.scores.tolist() == sorted(set(scores), reverse=True)
    bought = [coverage_and_accuracy(scores, correct, score) for score in curve.scores]
    assert curve.coverage.tolist() == [point.coverage for point in bought]
    assert curve.risk.tolist() == pytest.approx(
        [1 - (point.accuracy or 0.0) for point in bought], abs=1e-12
    )


def test_without_ties_the_mean_risk_is_aurc() -> None:
    """The curve and the area follow the same convention."""
    rng = np.random.default_rng(0)
    correct = rng.random(400) < 0.7
    scores = rng.normal(size=400) + correct
    assert risk_coverage_curve(scores, correct).risk.mean() == pytest.approx(
        aurc(scores, correct), abs=1e-12
    )


def test_risk_agrees_with_scikit_learn() -> None:
    """The selective accuracy of a threshold is the precision of releasing: scikit-learn has it at every threshold."""
    rng = np.random.default_rng(3)
    correct = rng.random(500) < 0.6
    scores = np.round(rng.normal(size=500) + correct, 1)
    precision, _, thresholds = precision_recall_curve(correct, scores)
    curve = risk_coverage_curve(scores, correct)
    assert curve.scores.tolist() == thresholds[::-1].tolist()
    assert curve.risk == pytest.approx(1 - precision[:-1][::-1], abs=1e-12)


@pytest.mark.parametrize(
    ("coverage", "risk"), [(0.2, 0.0), (0.41, 0.25), (0.6, 0.25), (0.8, 0.25), (1.0, 0.4)]
)
def test_risk_at_a_coverage(coverage: float, risk: float) -> None:
    """A coverage between two thresholds takes the next larger one: at least that share is released."""
    assert risk_at_coverage(SCORES, CORRECT, coverage) == risk


@pytest.mark.parametrize(
    ("risk", "coverage"), [(0.0, 0.4), (0.24, 0.4), (0.25, 0.8), (0.4, 1.0), (1.0, 1.0)]
)
def test_coverage_at_a_risk(risk: float, coverage: float) -> None:
    """A risk that a threshold just meets is met."""
    assert coverage_at_risk(SCORES, CORRECT, risk) == coverage


def test_coverage_at_a_risk_looks_past_a_bad_start() -> None:
    """One wrong answer at the very top doesn't hide that a longer list meets the risk."""
    assert coverage_at_risk([5, 4, 3, 2, 1], [0, 1, 1, 1, 0], 0.25) == 0.8


def test_no_coverage_meets_an_impossible_risk() -> None:
    """All answers wrong: nothing may be released."""
    assert coverage_at_risk([0.3, 0.2], [0, 0], 0.5) == 0.0


def _labels_from(least_score: float, answers: Answers) -> list[bool]:
    return [right for score, right in answers if score >= least_score]


@given(ANSWERS, SHARE)
def test_points_on_the_curve_are_their_definitions(answers: Answers, share: float) -> None:
    """Checked over every threshold: the fewest released answers that are enough, and the most that are good enough."""
    scores, correct = zip(*answers, strict=True)
    n = len(answers)
    released_at = [_labels_from(least, answers) for least in scores]
    enough = min((kept for kept in released_at if len(kept) >= share * n), key=len)
    assert risk_at_coverage(scores, correct, share) == pytest.approx(
        enough.count(False) / len(enough), abs=1e-12
    )
    good = [len(kept) for kept in released_at if kept.count(False) / len(kept) <= share]
    assert coverage_at_risk(scores, correct, share) == max(good, default=0) / n


@pytest.mark.parametrize("coverage", [0.0, -0.1, 1.1, math.nan])
def test_a_coverage_is_a_share(coverage: float) -> None:
    """Nothing released has no risk, and more than all can't be."""
    with pytest.raises(
        InputError,
        match=r"coverage: expected a share above 0 and up to 1, found .*; pass e\.g\. 0\.8",
    ):
        risk_at_coverage(SCORES, CORRECT, coverage)


@pytest.mark.parametrize("risk", [-0.1, 1.1, math.nan])
def test_a_risk_is_a_share(risk: float) -> None:
    """Outside 0 to 1 the question makes no sense."""
    with pytest.raises(
        InputError, match=r"risk: expected a share from 0 to 1, found .*; pass e\.g\. 0\.05"
    ):
        coverage_at_risk(SCORES, CORRECT, risk)
