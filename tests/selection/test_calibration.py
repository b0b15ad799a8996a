"""From selection scores to confidence and a threshold: order kept, edges held, targets met."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from aspire_guard.selection.calibration import Calibration, fit_calibration

TODAY = "2024-01-31"

# Few different scores, so that most examples hold ties.
ANSWERS = st.lists(st.tuples(st.sampled_from([-30.0, -2.0, -1.5, -0.25, -0.01]), st.booleans()), max_size=40)


def _fit(scores: list[float], correct: list[bool], target: float = 0.8) -> Calibration:
    return fit_calibration(scores, correct, target_accuracy=target, date=TODAY)


def _line(slope: float, intercept: float) -> Calibration:
    return Calibration(slope=slope, intercept=intercept, threshold=0.5, target_accuracy=0.8, n=10, date=TODAY)


def _released(calibration: Calibration, scores: list[float]) -> list[bool]:
    return [calibration.confidence(score) >= calibration.threshold for score in scores]


def test_confidence_is_the_logistic_of_a_line() -> None:
    """1 / (1 + exp(−(slope·g + intercept))), by hand."""
    assert _line(2.0, 1.0).confidence(-0.5) == 0.5
    assert _line(2.0, 1.0).confidence(0.0) == pytest.approx(math.e / (1 + math.e), abs=1e-15)


@pytest.mark.parametrize("score", [-1e300, -1e9, -800.0, -1.0, 0.0, 800.0, 1e300, -math.inf, math.inf])
def test_confidence_stays_below_one(score: float) -> None:
    """No score, however extreme, leaves [0, 1), so a threshold of 1 releases nothing."""
    assert 0.0 <= _line(2.0, 0.0).confidence(score) < 1.0


def test_confidence_of_nothing_known_is_not_a_number() -> None:
    """NaN is not turned into a confidence: it is for the guard to see."""
    assert math.isnan(_line(1.0, 0.0).confidence(math.nan))


def test_a_falling_line_is_no_calibration() -> None:
    """A slope below zero would turn the ranking round."""
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        _line(-0.1, 0.0)


@pytest.mark.parametrize("field", ["slope", "intercept"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_line_has_finite_coefficients(field: str, value: float) -> None:
    """What is not finite gives no confidence."""
    values = {"slope": 1.0, "intercept": 0.0} | {field: value}
    with pytest.raises(ValidationError):
        _line(**values)


# No deadline: the first fit imports scikit-learn.
@settings(deadline=None, max_examples=40)
@given(ANSWERS, st.sampled_from([0.5, 0.8, 1.0]))
def test_a_fit_is_monotone_and_keeps_its_target(answers: list[tuple[float, bool]], target: float) -> None:
    """Higher scores never get lower confidence, and what the threshold releases reaches the target."""
    scores, correct = [score for score, _ in answers], [right for _, right in answers]
    calibration = _fit(scores, correct, target)
    assert calibration.slope >= 0
    confidence = [calibration.confidence(score) for score in sorted(scores)]
    assert confidence == sorted(confidence)
    assert all(0 <= value < 1 for value in confidence)
    kept = [right for right, released in zip(correct, _released(calibration, scores), strict=True) if released]
    if calibration.target_accuracy is None:
        assert calibration.threshold == 1.0
        assert kept == []
    else:
        assert calibration.target_accuracy == target
        assert len(kept) >= 10
        assert sum(kept) / len(kept) >= target


@settings(deadline=None, max_examples=40)
@given(ANSWERS, st.sampled_from([0.5, 0.8, 1.0]))
def test_no_lower_threshold_reaches_the_target(answers: list[tuple[float, bool]], target: float) -> None:
    """Every threshold below the chosen one releases answers that fall short, or fewer than ten."""
    scores, correct = [score for score, _ in answers], [right for _, right in answers]
    calibration = _fit(scores, correct, target)
    confidence = [calibration.confidence(score) for score in scores]
    for lower in {value for value in confidence if value < calibration.threshold}:
        kept = [right for right, value in zip(correct, confidence, strict=True) if value >= lower]
        assert len(kept) < 10 or sum(kept) / len(kept) < target


def test_the_fit_finds_the_line_that_made_the_labels() -> None:
    """On 20,000 labels drawn with log-odds 1.5·g + 2, slope and intercept come back."""
    chance = np.random.default_rng(0)
    scores = chance.uniform(-4, 0, 20_000)
    correct = chance.random(20_000) < 1 / (1 + np.exp(-(1.5 * scores + 2)))
    calibration = fit_calibration(scores, correct, target_accuracy=0.8, date=TODAY)
    assert calibration.slope == pytest.approx(1.5, abs=0.1)
    assert calibration.intercept == pytest.approx(2.0, abs=0.1)
    assert calibration.n == 20_000
    assert calibration.date == TODAY
    assert calibration.guarantee is None


def test_the_threshold_is_the_lowest_that_reaches_the_target() -> None:
    """Ranked right-wrong by hand: 16 of the best 20 are right, and no longer list reaches 0.8."""
    correct = [*[True] * 14, False, False, True, True, False, False, *[False] * 10]
    scores = [-i / 10 for i in range(30)]
    calibration = _fit(scores, correct)
    assert calibration.threshold == calibration.confidence(scores[19])
    assert _released(calibration, scores) == [True] * 20 + [False] * 10
    assert calibration.target_accuracy == 0.8


def test_ties_are_released_together_or_not_at_all() -> None:
    """Twelve right answers above a tie of right and wrong ones: the tie as a whole falls short."""
    scores = [*[-0.1] * 12, *[-1.0] * 8]
    correct = [*[True] * 12, True, True, *[False] * 6]
    calibration = _fit(scores, correct)
    assert _released(calibration, scores) == [True] * 12 + [False] * 8


def test_fewer_than_ten_answers_set_no_threshold() -> None:
    """Nine right answers in a row may be luck."""
    scores = [-i / 10 for i in range(12)]
    assert _fit(scores, [True] * 9 + [False] * 3, 1.0).threshold == 1.0
    assert _fit(scores, [True] * 10 + [False] * 2, 1.0).threshold < 1.0


def test_a_target_that_nothing_reaches_releases_nothing() -> None:
    """The threshold is 1, which no confidence reaches, and no target is claimed."""
    scores = [-i / 10 for i in range(40)]
    calibration = _fit(scores, [i % 2 == 0 for i in range(40)], 0.9)
    assert calibration.threshold == 1.0
    assert calibration.target_accuracy is None
    assert not any(_released(calibration, [*scores, 0.0, math.inf]))


@pytest.mark.parametrize(("right", "confidence"), [(True, 13 / 14), (False, 1 / 14)])
def test_one_class_alone_gives_the_base_rate(right: bool, confidence: float) -> None:
    """Where all answers are right, or all are wrong, the scores tell nothing: Laplace's rule for all."""
    calibration = _fit([-i / 10 for i in range(12)], [right] * 12)
    assert calibration.slope == 0.0
    assert calibration.confidence(-0.5) == pytest.approx(confidence, abs=1e-12)
    assert calibration.threshold == (calibration.confidence(0.0) if right else 1.0)


def test_no_answers_give_even_odds_and_release_nothing() -> None:
    """An empty calibration is valid and careful."""
    calibration = _fit([], [])
    assert (calibration.slope, calibration.confidence(-1.0), calibration.threshold) == (0.0, 0.5, 1.0)
    assert (calibration.n, calibration.target_accuracy) == (0, None)


def test_scores_that_rank_the_wrong_way_round_give_the_base_rate() -> None:
    """A negative slope is never used: all answers get the share of right ones."""
    calibration = _fit([-i / 10 for i in range(20)], [False] * 10 + [True] * 10)
    assert calibration.slope == 0.0
    assert calibration.confidence(-1.0) == 0.5


def test_separable_scores_are_fitted_without_overflow() -> None:
    """Scores that part right from wrong perfectly have a steep but finite line, and release the right ones."""
    scores = [*[-0.001 * i for i in range(1, 16)], *[-50.0 - i for i in range(15)]]
    calibration = _fit(scores, [True] * 15 + [False] * 15, 1.0)
    assert math.isfinite(calibration.slope)
    assert _released(calibration, scores) == [True] * 15 + [False] * 15


def test_a_calibration_survives_json() -> None:
    """The numbers are the same to the last bit after writing and reading."""
    calibration = _fit(
        [-i / 7 for i in range(40)], list(itertools.islice(itertools.cycle([True, True, False]), 40)), 0.6
    )
    assert Calibration.model_validate_json(calibration.model_dump_json()) == calibration
