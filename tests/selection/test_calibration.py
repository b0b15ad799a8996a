"""calibration.json: thresholds and what they promise, and the fit that training makes."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from aspire_guard.selection.calibration import Calibration, Guarantee, Threshold, fit_calibration
from aspire_guard.selection.calibrators import IsotonicCalibrator, PlattCalibrator

TODAY = "2024-01-31"
PLATT = PlattCalibrator(slope=2.0, intercept=1.0)
GUARANTEE = Guarantee(target_risk=0.05, delta=0.1, n=1000, method="exact binomial", date=TODAY)
ACCEPT = Threshold(
    confidence=0.75, selection_score=0.05, objective="risk", target=0.05, guarantee=GUARANTEE
)

# Few different scores, so that most examples hold ties.
ANSWERS = st.lists(
    st.tuples(st.sampled_from([-30.0, -2.0, -1.5, -0.25, -0.01]), st.booleans()), max_size=40
)


def _make_calibration(*thresholds: Threshold) -> Calibration:
    return Calibration(
        calibrator=PLATT, thresholds=thresholds, n=1000, date=TODAY, source="scored.jsonl"
    )


def _fit(scores: list[float], correct: list[bool], target: float = 0.8) -> Calibration:
    return fit_calibration(scores, correct, target_accuracy=target, date=TODAY)


def _find_released(calibration: Calibration, scores: list[float]) -> list[bool]:
    return [calibration.confidence(score) >= calibration.threshold for score in scores]


def test_a_calibration_has_the_confidence_of_its_calibrator() -> None:
    """The threshold and the promise that release answers survive too."""
    calibration = _make_calibration(ACCEPT)
    assert calibration.confidence(-0.5) == PLATT.confidence(-0.5) == 0.5
    assert calibration.threshold == 0.75
    assert calibration.guarantee == GUARANTEE.sentence
    assert calibration.target_accuracy is None


def test_a_calibration_without_a_threshold_releases_nothing() -> None:
    """No confidence reaches 1, and nothing is promised."""
    calibration = _make_calibration()
    assert (calibration.threshold, calibration.guarantee, calibration.threshold_for()) == (
        1.0,
        None,
        None,
    )


def test_a_group_has_its_own_threshold_or_the_common_one() -> None:
    """It is found by group and by the name of the band."""
    own = ACCEPT.model_copy(update={"group": "tax", "confidence": 0.9})
    fallback = ACCEPT.model_copy(update={"name": "fallback", "confidence": 0.4})
    calibration = _make_calibration(own, ACCEPT, fallback)
    assert calibration.threshold_for("tax") == own
    assert calibration.threshold_for("law") == calibration.threshold_for() == ACCEPT
    assert calibration.threshold_for("tax", "fallback") == fallback
    assert calibration.threshold_for("tax", "review") is None
    assert calibration.threshold == 0.75


def test_a_threshold_is_for_its_group_alone() -> None:
    """If only one group has a threshold, answers of other groups are not released."""
    calibration = _make_calibration(ACCEPT.model_copy(update={"group": "tax"}))
    assert calibration.threshold_for("law") is None
    assert (calibration.threshold, calibration.guarantee) == (1.0, None)


def test_a_name_and_group_have_one_threshold() -> None:
    """Two of them would leave open which one holds."""
    with pytest.raises(
        ValidationError, match="expected one threshold of each name and group, found two"
    ):
        _make_calibration(ACCEPT, ACCEPT.model_copy(update={"confidence": 0.9}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"confidence": 1.0}, "expected no selection score if nothing is released, found 0.05"),
        ({"confidence": 1.1}, "less than or equal to 1"),
        ({"selection_score": math.inf}, "finite number"),
        ({"objective": "luck"}, "'risk', 'coverage', 'cost' or 'accuracy'"),
        ({"extra": 1}, "Extra inputs are not permitted"),
    ],
)
def test_an_impossible_threshold_is_refused(change: dict[str, Any], message: str) -> None:
    """A threshold is checked when it is made, and so also when it is read."""
    with pytest.raises(ValidationError, match=message):
        Threshold.model_validate(ACCEPT.model_dump() | change)


@pytest.mark.parametrize(
    "change",
    [{"target_risk": 0.0}, {"target_risk": 1.0}, {"delta": 0.0}, {"n": 0}, {"family": 0}],
)
def test_an_impossible_promise_is_refused(change: dict[str, Any]) -> None:
    """Risk and δ lie between 0 and 1, and a promise rests on answers."""
    with pytest.raises(ValidationError):
        Guarantee.model_validate(GUARANTEE.model_dump() | change)


def test_a_promise_is_one_plain_sentence() -> None:
    """It names probability, risk, number and date. If several thresholds share δ, it says so."""
    assert GUARANTEE.sentence == (
        "with probability 90 % over the calibration answers, at most 5 % of the released answers are wrong, "
        "for questions like the 1,000 calibrated on (2024-01-31)"
    )
    assert GUARANTEE.model_copy(update={"family": 3}).sentence.startswith(
        "with probability 90 % over the calibration answers, for all 3 thresholds at once, at most 5 % of"
    )


@pytest.mark.parametrize(("delta", "shown"), [(0.07, "93 %"), (1e-6, "99.9999 %")])
def test_a_probability_is_not_rounded_up(delta: float, shown: str) -> None:
    """No promise is made certain by its wording."""
    assert (
        f"with probability {shown} over" in GUARANTEE.model_copy(update={"delta": delta}).sentence
    )


def test_a_calibration_survives_json() -> None:
    """Every field comes back, numbers to the last bit, also those of a fit and of another calibrator."""
    steps = IsotonicCalibrator(knots=(-1 / 3, 0.1), values=(1 / 7, 0.9))
    fitted = _fit(
        [-i / 7 for i in range(40)],
        list(itertools.islice(itertools.cycle([True, True, False]), 40)),
        0.6,
    )
    for calibration in (
        _make_calibration(ACCEPT),
        fitted,
        fitted.model_copy(update={"calibrator": steps}),
    ):
        assert Calibration.model_validate_json(calibration.model_dump_json()) == calibration


def test_a_file_of_another_form_is_refused() -> None:
    """Nothing unknown is passed over in silence."""
    values = json.loads(_make_calibration(ACCEPT).model_dump_json()) | {"slope": 1.0}
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Calibration.model_validate(values)


# No deadline: the first fit imports scikit-learn.
@settings(max_examples=40)
@given(ANSWERS, st.sampled_from([0.5, 0.8, 1.0]))
def test_a_fit_is_monotone_and_keeps_its_target(
    answers: list[tuple[float, bool]], target: float
) -> None:
    """Higher scores never get lower confidence, and what the threshold releases reaches the target."""
    scores, correct = [score for score, _ in answers], [right for _, right in answers]
    calibration = _fit(scores, correct, target)
    confidence = [calibration.confidence(score) for score in sorted(scores)]
    assert confidence == sorted(confidence)
    assert all(0 <= value < 1 for value in confidence)
    kept = [
        right
        for right, released in zip(correct, _find_released(calibration, scores), strict=True)
        if released
    ]
    if calibration.target_accuracy is None:
        assert calibration.threshold == 1.0
        assert kept == []
    else:
        assert calibration.target_accuracy == target
        assert len(kept) >= 10
        assert sum(kept) / len(kept) >= target


@settings(max_examples=40)
@given(ANSWERS, st.sampled_from([0.5, 0.8, 1.0]))
def test_no_lower_threshold_reaches_the_target(
    answers: list[tuple[float, bool]], target: float
) -> None:
    """Every threshold below the chosen one releases answers that fall short, or fewer than ten."""
    scores, correct = [score for score, _ in answers], [right for _, right in answers]
    calibration = _fit(scores, correct, target)
    confidence = [calibration.confidence(score) for score in scores]
    for lower in {value for value in confidence if value < calibration.threshold}:
        kept = [right for right, value in zip(correct, confidence, strict=True) if value >= lower]
        assert len(kept) < 10 or sum(kept) / len(kept) < target


def test_the_threshold_is_the_lowest_that_reaches_the_target() -> None:
    """Ranked right-wrong by hand: 16 of the best 20 are right, and no longer list reaches 0.8."""
    correct = [*[True] * 14, False, False, True, True, False, False, *[False] * 10]
    scores = [-i / 10 for i in range(30)]
    calibration = _fit(scores, correct)
    assert _find_released(calibration, scores) == [True] * 20 + [False] * 10
    assert calibration.thresholds == (
        Threshold(
            confidence=calibration.confidence(scores[19]),
            selection_score=scores[19],
            objective="accuracy",
            target=0.8,
            coverage=20 / 30,
            risk=4 / 20,
        ),
    )
    assert calibration.calibrator.method == "platt"
    assert (calibration.n, calibration.date, calibration.guarantee) == (30, TODAY, None)


def test_ties_are_released_together_or_not_at_all() -> None:
    """Twelve right answers above a tie of right and wrong ones: the tie as a whole falls short."""
    scores = [*[-0.1] * 12, *[-1.0] * 8]
    correct = [*[True] * 12, True, True, *[False] * 6]
    calibration = _fit(scores, correct)
    assert _find_released(calibration, scores) == [True] * 12 + [False] * 8


def test_fewer_than_ten_answers_set_no_threshold() -> None:
    """Nine right answers in a row may be luck."""
    scores = [-i / 10 for i in range(12)]
    assert _fit(scores, [True] * 9 + [False] * 3, 1.0).threshold == 1.0
    assert _fit(scores, [True] * 10 + [False] * 2, 1.0).threshold < 1.0


def test_a_target_that_nothing_reaches_releases_nothing() -> None:
    """The threshold is 1, which no confidence reaches. The requested target stays on record, and is not claimed."""
    scores = [-i / 10 for i in range(40)]
    calibration = _fit(scores, [i % 2 == 0 for i in range(40)], 0.9)
    assert calibration.thresholds == (
        Threshold(confidence=1.0, objective="accuracy", target=0.9, coverage=0.0),
    )
    assert calibration.target_accuracy is None
    assert not any(_find_released(calibration, [*scores, 0.0, math.inf]))


@pytest.mark.parametrize(("right", "confidence"), [(True, 13 / 14), (False, 1 / 14)])
def test_one_class_alone_is_released_whole_or_not_at_all(right: bool, confidence: float) -> None:
    """All answers have the base rate as confidence: where all are right it is the threshold."""
    calibration = _fit([-i / 10 for i in range(12)], [right] * 12)
    assert calibration.confidence(-0.5) == pytest.approx(confidence, abs=1e-12)
    assert calibration.threshold == (calibration.confidence(0.0) if right else 1.0)


def test_no_answers_give_even_odds_and_release_nothing() -> None:
    """An empty calibration is valid and cautious."""
    calibration = _fit([], [])
    assert (calibration.confidence(-1.0), calibration.threshold) == (0.5, 1.0)
    assert (calibration.n, calibration.target_accuracy) == (0, None)
