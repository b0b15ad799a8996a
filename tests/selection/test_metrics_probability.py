"""Brier score, reliability and calibration error: hand-computed tables, scikit-learn, MAPIE, and their definitions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mapie.metrics.calibration import expected_calibration_error
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from aspire_guard.errors import InputError
from aspire_guard.selection.metrics import ReliabilityBin, brier, ece, reliability_bins

Answers = list[tuple[float, bool]]

# Few different confidences, so that most examples hold ties.
ANSWERS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.125, 0.5, 0.75, 1.0]), st.booleans()), min_size=1, max_size=20
)


def _sample(n: int, decimals: int = 16) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    confidence = np.round(rng.beta(4, 2, size=n), decimals)
    return confidence, rng.random(n) < confidence**2


@pytest.mark.parametrize(
    ("confidence", "correct", "expected"),
    [
        ([1.0, 0.0], [1, 0], 0.0),
        ([1.0, 0.0], [0, 1], 1.0),
        ([0.5, 0.5, 0.5], [1, 0, 1], 0.25),
        ([0.75, 0.25], [1, 1], (1 / 16 + 9 / 16) / 2),
    ],
)
def test_brier_of_small_tables(
    confidence: list[float], correct: list[int], expected: float
) -> None:
    """The mean of (confidence − correct)²."""
    assert brier(confidence, correct) == expected


def test_brier_agrees_with_scikit_learn() -> None:
    """They agree on a thousand answers, to the twelfth digit."""
    confidence, correct = _sample(1000)
    assert brier(confidence, correct) == pytest.approx(
        brier_score_loss(correct, confidence), abs=1e-12
    )


def test_bins_hold_equally_many_answers() -> None:
    """Six answers in three bins: two each, lowest confidence first."""
    assert reliability_bins([0.9, 0.1, 0.5, 0.3, 0.7, 1.0], [1, 0, 1, 0, 0, 1], bins=3) == [
        ReliabilityBin(low=0.1, high=0.3, n=2, confidence=0.2, accuracy=0.0),
        ReliabilityBin(low=0.5, high=0.7, n=2, confidence=0.6, accuracy=0.5),
        ReliabilityBin(low=0.9, high=1.0, n=2, confidence=0.95, accuracy=1.0),
    ]


def test_ties_share_a_bin() -> None:
    """Four of five answers tie: they stay together where their middle lies, and the third bin stays out."""
    assert reliability_bins([0.5, 0.5, 0.5, 0.5, 0.9], [1, 0, 1, 1, 1], bins=3) == [
        ReliabilityBin(low=0.5, high=0.5, n=4, confidence=0.5, accuracy=0.75),
        ReliabilityBin(low=0.9, high=0.9, n=1, confidence=0.9, accuracy=1.0),
    ]


@pytest.mark.parametrize(
    ("confidence", "correct", "bins", "expected"),
    [
        ([0.9, 0.1, 0.5, 0.3, 0.7, 1.0], [1, 0, 1, 0, 0, 1], 3, (2 * 0.2 + 2 * 0.1 + 2 * 0.05) / 6),
        ([0.5, 0.5, 0.5, 0.5, 0.9], [1, 0, 1, 1, 1], 3, (4 * 0.25 + 1 * 0.1) / 5),
        ([0.75, 0.75, 0.75, 0.75], [1, 1, 1, 0], 15, 0.0),
        ([0.2, 0.6], [0, 1], 1, 0.1),
        ([1.0], [0], 15, 1.0),
    ],
)
def test_ece_of_small_tables(
    confidence: list[float], correct: list[int], bins: int, expected: float
) -> None:
    """The mean over answers of how far the accuracy of their bin lies from its mean confidence."""
    assert ece(confidence, correct, bins=bins) == pytest.approx(expected, abs=1e-15)


def _total_gap(rows: Answers) -> float:
    return sum(confidence - right for confidence, right in rows)


@given(ANSWERS, st.integers(1, 6))
def test_ece_is_its_definition(answers: Answers, bins: int) -> None:
    """Each tie goes to the bin in which the middle of its ranks falls, in exact fractions."""
    n = len(answers)
    members: dict[int, Answers] = {}
    for value, right in answers:
        middle = Fraction(
            sum(c < value for c, _ in answers) + sum(c <= value for c, _ in answers), 2 * n
        )
        members.setdefault(math.floor(bins * middle), []).append((value, right))
    gaps = [abs(_total_gap(rows)) for rows in members.values()]
    error = sum(gaps) / n
    assert ece(*zip(*answers, strict=True), bins=bins) == pytest.approx(error, abs=1e-12)


@given(ANSWERS.flatmap(lambda answers: st.tuples(st.just(answers), st.permutations(answers))))
def test_the_order_of_answers_does_not_matter(orders: tuple[Answers, Answers]) -> None:
    """Ties have no order of their own, so shuffling changes nothing."""
    one, other = (reliability_bins(*zip(*answers, strict=True), bins=4) for answers in orders)
    assert one == other


def test_bins_agree_with_scikit_learn() -> None:
    """Its quantile strategy gives the same bins where nothing ties."""
    confidence, correct = _sample(1000)
    accuracy, mean = calibration_curve(correct, confidence, n_bins=10, strategy="quantile")
    rows = reliability_bins(confidence, correct, bins=10)
    assert [row.n for row in rows] == [100] * 10
    assert [row.confidence for row in rows] == pytest.approx(mean.tolist(), abs=1e-12)
    assert [row.accuracy for row in rows] == pytest.approx(accuracy.tolist(), abs=1e-12)


def test_ece_agrees_with_mapie() -> None:
    """Its quantile strategy gives the same error where nothing ties."""
    confidence, correct = _sample(1500)
    expected = expected_calibration_error(
        correct.astype(int), confidence, num_bins=15, split_strategy="quantile"
    )
    assert ece(confidence, correct) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("value", [-0.1, 1.5, math.inf])
def test_confidences_are_probabilities(value: float) -> None:
    """Selection scores passed by mistake are named."""
    with pytest.raises(InputError) as caught:
        brier([0.5, value], [1, 0])
    assert str(caught.value) == (
        f"confidence: expected probabilities, found {value:g}; pass confidences, not selection scores."
    )


def test_there_is_at_least_one_bin() -> None:
    """No bins, no error to measure."""
    with pytest.raises(InputError, match=r"bins: expected at least 1, found 0; pass e\.g\. 15\."):
        ece([0.5], [1], bins=0)
