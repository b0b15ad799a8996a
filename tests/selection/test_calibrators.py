"""Calibrators: probabilities by hand and by definition, order kept to the last bit, and the right one chosen."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapie.calibration import VennAbersCalibrator as MapieVennAbers
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss
from sklearn.model_selection import StratifiedKFold

from aspire_guard.errors import InputError
from aspire_guard.selection.calibrators import (
    HIGHEST_CONFIDENCE,
    METHODS,
    AnyCalibrator,
    Calibrator,
    IsotonicCalibrator,
    Method,
    PlattCalibrator,
    TemperatureCalibrator,
    VennAbersCalibrator,
    fit_calibrator,
)

READER: TypeAdapter[AnyCalibrator] = TypeAdapter(AnyCalibrator)

PLATT = PlattCalibrator(slope=2.0, intercept=1.0)
TEMPERATURE = TemperatureCalibrator(temperature=2.0)
ISOTONIC = IsotonicCalibrator(knots=(-3.0, -2.0, -1.0, -0.5), values=(0.25, 0.5, 0.5, 1.0))
VENN_ABERS = VennAbersCalibrator(
    lower_knots=(-3.0, -1.0),
    lower=(0.0, 0.25, 0.75),
    upper_knots=(-2.0, -0.5),
    upper=(0.5, 0.8, 1.0),
)
ALL: tuple[Calibrator, ...] = (PLATT, TEMPERATURE, ISOTONIC, VENN_ABERS)
EXTREMES = [
    -math.inf,
    -1e300,
    -1e9,
    -800.0,
    -3.0,
    -1.0,
    -0.5,
    -1e-300,
    0.0,
    1e-300,
    800.0,
    1e300,
    math.inf,
]

every_calibrator = pytest.mark.parametrize(
    "calibrator", ALL, ids=lambda calibrator: calibrator.method
)
every_method = pytest.mark.parametrize("method", METHODS)

# Few different scores, so that most examples hold ties.
ANSWERS = st.lists(
    st.tuples(st.sampled_from([-4.0, -2.0, -1.5, -0.25, -0.01]), st.booleans()), max_size=12
)
Answers = list[tuple[float, bool]]


def _sample(
    n: int, slope: float, intercept: float, seed: int = 0
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Scores below 0, and labels whose log-odds are a line in them."""
    rng = np.random.default_rng(seed)
    scores = -rng.exponential(size=n)
    return scores, rng.random(n) < 1 / (1 + np.exp(-(slope * scores + intercept)))


def test_platt_is_the_logistic_of_a_line() -> None:
    """1 / (1 + exp(−(slope·g + intercept))), by hand."""
    assert PLATT.confidence(-0.5) == 0.5
    assert PLATT.confidence(0.0) == pytest.approx(math.e / (1 + math.e), abs=1e-15)


def test_platt_without_a_slope_gives_all_the_same() -> None:
    """If scores tell nothing, even an infinite score tells nothing."""
    flat = PlattCalibrator(slope=0.0, intercept=math.log(3))
    assert (
        flat.confidences([-math.inf, -1.0, 0.0, math.inf]).tolist()
        == [pytest.approx(0.75, abs=1e-15)] * 4
    )
    assert len(set(flat.confidences(EXTREMES).tolist())) == 1


@pytest.mark.parametrize("probability", [1e-9, 0.1, 1 - 1e-9])
def test_a_temperature_of_one_leaves_probabilities_alone(probability: float) -> None:
    """A log-probability then has its own probability as confidence."""
    one = TemperatureCalibrator(temperature=1.0)
    assert one.confidence(math.log(probability)) == pytest.approx(probability, rel=1e-9)


def test_a_temperature_divides_the_log_odds() -> None:
    """P = 0.9 has odds of 9. At T = 2 the odds are 3 and the confidence is ¾."""
    assert TEMPERATURE.confidence(math.log(0.9)) == pytest.approx(0.75, abs=1e-12)
    assert TEMPERATURE.confidence(math.log(0.5)) == pytest.approx(0.5, abs=1e-12)


def test_isotonic_draws_straight_lines_between_knots() -> None:
    """Half-way between two knots is half-way between their values, and beyond the ends it stays level."""
    shown = ISOTONIC.confidences([-9.0, -3.0, -2.5, -2.0, -1.5, -0.75, -0.5, 4.0])
    assert shown == pytest.approx([0.25, 0.25, 0.375, 0.5, 0.5, 0.75, 1.0, 1.0], abs=2e-6)


def test_venn_abers_steps_at_its_knots() -> None:
    """At a knot p0 has risen and p1 has not: the new answer ties with the one of that score."""
    shown = [VENN_ABERS.interval(score) for score in (-9.0, -3.0, -2.0, -1.9, -1.0, -0.5, -0.4)]
    assert shown == [
        (0, 0.5),
        (0.25, 0.5),
        (0.25, 0.5),
        (0.25, 0.8),
        (0.75, 0.8),
        (0.75, 0.8),
        (0.75, 1.0),
    ]


def test_venn_abers_merges_its_two_probabilities() -> None:
    """p1 / (1 − p0 + p1): 0.8 / 1.05 between 0.75 and 0.8."""
    assert VENN_ABERS.confidence(-1.0) == pytest.approx(0.8 / 1.05, abs=1e-6)


@every_calibrator
def test_confidence_stays_below_one(calibrator: Calibrator) -> None:
    """No score, however extreme, leaves [0, 1), so a threshold of 1 releases nothing."""
    confidences = calibrator.confidences(EXTREMES)
    assert (confidences >= 0.0).all()
    assert (confidences <= HIGHEST_CONFIDENCE).all()
    assert HIGHEST_CONFIDENCE < 1.0


@every_calibrator
def test_confidence_of_nothing_known_is_not_a_number(calibrator: Calibrator) -> None:
    """NaN does not become a confidence, so that the guard can notice it."""
    assert math.isnan(calibrator.confidence(math.nan))
    assert calibrator.confidences([-1.0, math.nan, 0.0])[[0, 2]].tolist() == [
        calibrator.confidence(-1.0),
        calibrator.confidence(0.0),
    ]


@every_calibrator
def test_one_score_and_many_give_the_same_confidences(calibrator: Calibrator) -> None:
    """They are equal to the last bit at any position of the array, because they are compared with a threshold."""
    scores = -np.random.default_rng(0).exponential(size=4001)
    together = calibrator.confidences(scores).tolist()
    assert [calibrator.confidence(score) for score in scores.tolist()] == together
    assert calibrator.confidences(scores[::-1])[::-1].tolist() == together
    assert calibrator.confidences(scores[1::3]).tolist() == together[1::3]


@every_calibrator
@given(st.lists(st.floats(-1e100, 1e100), min_size=1))
def test_a_higher_score_never_has_a_lower_confidence(
    calibrator: Calibrator, scores: list[float]
) -> None:
    """Rounding does not change the order either."""
    assert (np.diff(calibrator.confidences(sorted(scores))) >= 0).all()


@every_calibrator
def test_a_higher_score_has_a_higher_confidence(calibrator: Calibrator) -> None:
    """It is higher on the plateaus of step functions too, so that a threshold on the score is one on the confidence."""
    assert (np.diff(calibrator.confidences(np.linspace(-12.0, -0.001, 5000))) > 0).all()


@every_calibrator
def test_a_calibrator_survives_json(calibrator: Calibrator) -> None:
    """After writing and reading it is of the same kind and gives the same numbers to the last bit."""
    again = READER.validate_json(calibrator.model_dump_json())
    assert again == calibrator
    scores = np.linspace(-5, 0, 999)
    assert again.confidences(scores).tolist() == calibrator.confidences(scores).tolist()


@every_method
def test_a_fitted_calibrator_survives_json(method: Method) -> None:
    """Fitted numbers also keep all their digits in the file."""
    scores, correct = _sample(500, 2.0, 1.0)
    fitted = fit_calibrator(scores, correct, method=method).calibrator
    assert fitted.method == method
    again = READER.validate_json(fitted.model_dump_json())
    assert again.confidences(scores).tolist() == fitted.confidences(scores).tolist()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "platt", "slope": -0.1, "intercept": 0}, "greater than or equal to 0"),
        ({"method": "platt", "slope": "NaN", "intercept": 0}, "finite number"),
        ({"method": "temperature", "temperature": 0}, "greater than 0"),
        ({"method": "isotonic", "knots": [], "values": []}, "at least 1 item"),
        (
            {"method": "isotonic", "knots": [0, 1], "values": [0.5]},
            "expected one value per knot, found 1 and 2",
        ),
        (
            {"method": "isotonic", "knots": [0, 0], "values": [0.1, 0.5]},
            "knots that increase, found two that don't",
        ),
        (
            {"method": "isotonic", "knots": [0, 1], "values": [0.5, 0.1]},
            "values that never fall, found one below",
        ),
        (
            {"method": "isotonic", "knots": [0, 1], "values": [0.5, math.nan]},
            "less than or equal to 1",
        ),
        (
            {"method": "venn_abers", "lower": [0.1, 0.2]},
            "expected one value more than knots, found 2 and 0",
        ),
        (
            {"method": "venn_abers", "upper": [0.9, 0.8], "upper_knots": [1]},
            "values that never fall",
        ),
        (
            {"method": "venn_abers", "lower": [0, 0.9], "lower_knots": [1], "upper": [0.5]},
            "expected p0 ≤ p1",
        ),
        ({"method": "magic"}, "does not match any of the expected tags"),
        ({"slope": 1, "intercept": 0}, "Unable to extract tag"),
        (
            {"method": "platt", "slope": 1, "intercept": 0, "extra": 1},
            "Extra inputs are not permitted",
        ),
    ],
)
def test_numbers_that_calibrate_nothing_are_refused(values: dict[str, Any], message: str) -> None:
    """The numbers are not finite, fall, have the wrong length, or belong to no known method."""
    rest = {"lower_knots": [], "lower": [0], "upper_knots": [], "upper": [1]}
    with pytest.raises(ValidationError, match=message):
        READER.validate_python((rest if values.get("method") == "venn_abers" else {}) | values)


def test_platt_finds_the_line() -> None:
    """20,000 answers drawn from a logistic of slope 2 and intercept 1.5 give it back."""
    fitted = fit_calibrator(*_sample(20_000, 2.0, 1.5), method="platt").calibrator
    assert isinstance(fitted, PlattCalibrator)
    assert [fitted.slope, fitted.intercept] == pytest.approx([2.0, 1.5], abs=0.1)


def test_platt_agrees_with_scikit_learn() -> None:
    """Its logistic regression without a penalty has the same line."""
    scores, correct = _sample(400, 1.0, 0.5)
    fitted = fit_calibrator(scores, correct, method="platt").calibrator
    line = LogisticRegression(C=math.inf, tol=1e-8).fit(scores[:, None], correct)
    assert fitted.confidences(scores) == pytest.approx(
        line.predict_proba(scores[:, None])[:, 1], abs=1e-6
    )


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_platt_works_on_every_scale(scale: float) -> None:
    """Confidences don't depend on the unit of the score."""
    scores, correct = _sample(400, 1.0, 0.5)
    small = fit_calibrator(scores, correct, method="platt").calibrator
    scaled = fit_calibrator(scale * scores + 3 * scale, correct, method="platt").calibrator
    assert scaled.confidences(scale * scores + 3 * scale) == pytest.approx(
        small.confidences(scores), abs=1e-6
    )


def test_a_temperature_is_found_again() -> None:
    """Answers that are right with the probability that T = 1.7 gives are fitted with T = 1.7."""
    rng = np.random.default_rng(1)
    scores = -rng.exponential(size=20_000)
    correct = rng.random(20_000) < TemperatureCalibrator(temperature=1.7).confidences(scores)
    fitted = fit_calibrator(scores, correct, method="temperature").calibrator
    assert isinstance(fitted, TemperatureCalibrator)
    assert fitted.temperature == pytest.approx(1.7, rel=0.05)


def test_a_log_probability_of_zero_can_be_fitted() -> None:
    """Certainty counts as log-odds of 36, the most that a float can tell from it. It is fitted, and ranks highest."""
    assert (
        TEMPERATURE.confidence(0.0)
        == TEMPERATURE.confidence(5.0)
        == pytest.approx(1 - math.exp(-18), abs=1e-15)
    )
    scores, correct = _sample(400, 2.0, 1.5)
    scores[:20] = 0.0
    fitted = fit_calibrator(scores, correct, method="temperature").calibrator
    assert fitted.confidence(-0.5) < fitted.confidence(0.0) < 0.95


@settings(max_examples=30)
@given(ANSWERS)
def test_isotonic_agrees_with_scikit_learn(answers: Answers) -> None:
    """They agree at and between all scores, up to the millionth that keeps the order."""
    if len({right for _, right in answers}) < 2:
        return
    scores, correct = map(np.array, zip(*answers, strict=True))
    fitted = fit_calibrator(scores, correct, method="isotonic").calibrator
    between = np.linspace(-5, 1, 61)
    expected = (
        IsotonicRegression(out_of_bounds="clip").fit(scores, correct.astype(float)).predict(between)
    )
    assert fitted.confidences(between) == pytest.approx(expected, abs=2e-6)


@settings(max_examples=30)
@given(ANSWERS)
def test_venn_abers_is_its_definition(answers: Answers) -> None:
    """Isotonic regression with the new answer added as wrong, and again as right, for every score there could be."""
    if len({right for _, right in answers}) < 2:
        return
    scores, correct = zip(*answers, strict=True)
    fitted = fit_calibrator(scores, correct, method="venn_abers").calibrator
    assert isinstance(fitted, VennAbersCalibrator)
    for new in (-9.0, -4.0, -3.0, -2.0, -1.75, -1.5, -1.0, -0.25, -0.1, -0.01, 5.0):
        assert fitted.interval(new) == pytest.approx(
            _two_isotonic_fits(scores, correct, new), abs=1e-12
        )


def _two_isotonic_fits(
    scores: tuple[float, ...], correct: tuple[bool, ...], new: float
) -> list[float]:
    return [
        float(
            IsotonicRegression()
            .fit([*scores, new], [*map(float, correct), label])
            .predict([new])[0]
        )
        for label in (0.0, 1.0)
    ]


@pytest.mark.filterwarnings(
    "ignore::RuntimeWarning"
)  # MAPIE divides 0 by 0 on its way, and passes over it
def test_venn_abers_agrees_with_mapie() -> None:
    """The same intervals and the same merged probabilities, for 300 answers with ties.

    Above the highest of them MAPIE stays at the last step, where two isotonic fits give p1 = 1; so we don't look there.
    """
    scores, correct = _sample(300, 2.0, 1.0)
    scores = np.round(scores, 1)
    new = np.round(np.linspace(-4, 0, 81), 2)
    # Venn–Abers sees the order only, so a rising function of the score serves as MAPIE's classifier.
    rising = LogisticRegression().fit(scores[:, None], correct)
    theirs = MapieVennAbers(estimator=rising, cv="prefit").fit(scores[:, None], correct)
    merged, interval = theirs.predict_proba(new[:, None], p0_p1_output=True)
    ours = fit_calibrator(scores, correct, method="venn_abers").calibrator
    assert isinstance(ours, VennAbersCalibrator)
    assert np.array([ours.interval(score) for score in new]) == pytest.approx(interval, abs=1e-12)
    assert ours.confidences(new) == pytest.approx(merged[:, 1], abs=2e-6)


def test_a_long_venn_abers_is_thinned_outward() -> None:
    """At most 1,000 steps each way are kept. The interval holds the exact interval and is less than 0.001 wider."""
    scores, correct = _sample(6000, 40.0, 20.0)
    thin = fit_calibrator(scores, correct, method="venn_abers").calibrator
    assert isinstance(thin, VennAbersCalibrator)
    assert max(len(thin.lower_knots), len(thin.upper_knots)) <= 1000
    for new in np.quantile(scores, np.linspace(0, 1, 40)).tolist():
        p0, p1 = _two_isotonic_fits(tuple(scores.tolist()), tuple(correct.tolist()), new)
        low, high = thin.interval(new)
        assert p0 - 0.001 < low <= p0 + 1e-12
        assert p1 - 1e-12 <= high < p1 + 0.001


def test_the_interval_is_narrow_if_data_is_plenty() -> None:
    """With 2,000 answers p0 and p1 are close, and the confidence lies between them."""
    scores, correct = _sample(2000, 2.0, 1.0)
    fitted = fit_calibrator(scores, correct, method="venn_abers").calibrator
    assert isinstance(fitted, VennAbersCalibrator)
    p0, p1 = fitted.interval(-0.5)
    assert p0 - 1e-6 <= fitted.confidence(-0.5) <= p1 + 1e-6
    assert 0 < p1 - p0 < 0.05


def test_the_best_is_the_method_of_least_loss() -> None:
    """Platt wins if the log-odds are a line. If they are a step, it loses to both free curves."""
    fitted = fit_calibrator(*_sample(4000, 2.0, 1.5))
    assert set(fitted.comparison) == set(METHODS)
    assert fitted.calibrator.method == "platt"
    rng = np.random.default_rng(2)
    scores = -rng.exponential(size=4000)
    correct = rng.random(4000) < np.where(scores > -1, 0.9, 0.5)
    stepped = fit_calibrator(scores, correct)
    assert stepped.calibrator.method in {"isotonic", "venn_abers"}
    assert stepped.comparison["platt"].brier > stepped.comparison[stepped.calibrator.method].brier


def test_the_losses_are_measured_on_held_out_answers() -> None:
    """Five folds by hand, with scikit-learn's isotonic regression and losses."""
    scores, correct = _sample(200, 2.0, 1.0)
    shuffled = np.random.default_rng(0).permutation(200)
    x, y = scores[shuffled], correct[shuffled]
    held_out = np.empty(200)
    for kept, out in StratifiedKFold(5, shuffle=True, random_state=0).split(x, y):
        held_out[out] = (
            IsotonicRegression(out_of_bounds="clip")
            .fit(x[kept], y[kept].astype(float))
            .predict(x[out])
        )
    losses = fit_calibrator(scores, correct, method="isotonic").comparison["isotonic"]
    assert losses.brier == pytest.approx(brier_score_loss(y, held_out), abs=1e-5)
    squeezed = np.clip(held_out, 2e-7, 1 - 2e-7)
    assert losses.log_loss == pytest.approx(log_loss(y, squeezed), rel=0.05)


def test_equal_answers_are_fitted_equally() -> None:
    """The same call gives the same numbers: folds are drawn from a fixed seed."""
    answers = _sample(300, 1.0, 0.5)
    assert fit_calibrator(*answers) == fit_calibrator(*answers)


def test_few_answers_of_one_kind_leave_platt() -> None:
    """Nine wrong answers are too few for a comparison over five folds, and ten are enough."""
    scores = [-i / 10 for i in range(40)]
    few = fit_calibrator(scores, [i < 31 for i in range(40)])
    assert (few.calibrator.method, few.comparison) == ("platt", {})
    assert len(fit_calibrator(scores, [i < 30 for i in range(40)]).comparison) == 4


def test_few_wrong_answers_among_very_many_can_be_fitted() -> None:
    """Twelve of 300,000 answers are wrong: too few of them are among the 100,000 that methods are compared on."""
    scores = -np.arange(300_000) / 300_000
    fitted = fit_calibrator(scores, np.arange(300_000) % 25_000 != 7)
    assert (fitted.calibrator.method, fitted.comparison) == ("platt", {})


@every_method
def test_a_method_that_is_asked_for_is_taken(method: Method) -> None:
    """It is fitted to few answers too. Its losses alone are measured if there are enough."""
    few = fit_calibrator([-0.1, -0.2, -3.0, -4.0], [1, 1, 0, 0], method=method)
    assert (few.calibrator.method, few.comparison) == (method, {})
    assert set(fit_calibrator(*_sample(300, 1.0, 0.5), method=method).comparison) == {method}


@pytest.mark.parametrize("method", ["best", "temperature"])
@pytest.mark.parametrize(("right", "confidence"), [(True, 13 / 14), (False, 1 / 14)])
def test_one_class_alone_gives_the_base_rate(method: Any, right: bool, confidence: float) -> None:
    """If all answers are right, or all are wrong, the scores tell nothing: Laplace's rule for all."""
    fitted = fit_calibrator([-i / 10 for i in range(12)], [right] * 12, method=method)
    assert fitted.comparison == {}
    assert (
        fitted.calibrator.confidences([-9.0, 0.0]).tolist()
        == [pytest.approx(confidence, abs=1e-12)] * 2
    )


def test_no_answers_give_even_odds() -> None:
    """An empty calibration is valid and cautious."""
    assert fit_calibrator([], []).calibrator == PlattCalibrator(slope=0.0, intercept=0.0)


@pytest.mark.parametrize(
    "scores", [[-i / 10 for i in range(20)], [-1.0] * 20], ids=["the wrong way round", "equal"]
)
def test_scores_that_tell_nothing_give_the_base_rate(scores: list[float]) -> None:
    """A negative slope is never used: all answers get the share of right ones."""
    fitted = fit_calibrator(scores, [False] * 10 + [True] * 10, method="platt").calibrator
    assert fitted == PlattCalibrator(slope=0.0, intercept=0.0)


@every_method
def test_scores_the_wrong_way_round_are_fitted_by_every_method(method: Method) -> None:
    """The ranking is not reversed: every confidence is about the share of right answers."""
    fitted = fit_calibrator(
        [-i / 10 for i in range(20)], [False] * 10 + [True] * 10, method=method
    ).calibrator
    shown = fitted.confidences([-1.5, -1.0, -0.5])
    assert (np.diff(shown) >= 0).all()
    assert shown == pytest.approx([0.5] * 3, abs=0.1)


def test_separable_scores_are_fitted_without_overflow() -> None:
    """Scores that part right from wrong perfectly have a steep but finite line."""
    scores = [*[-0.001 * i for i in range(1, 16)], *[-50.0 - i for i in range(15)]]
    fitted = fit_calibrator(scores, [True] * 15 + [False] * 15).calibrator
    assert fitted.confidences([-50.0, -0.02]).tolist() == pytest.approx([0.0, 1.0], abs=0.1)


def test_scores_above_zero_have_no_temperature() -> None:
    """They are not log-probabilities. The best other method is chosen, and asking for a temperature is an error."""
    scores, correct = _sample(300, 1.0, 0.5)
    assert set(fit_calibrator(scores + 2, correct).comparison) == {
        "platt",
        "isotonic",
        "venn_abers",
    }
    with pytest.raises(InputError) as caught:
        fit_calibrator([2.5, -1.0], [True, False], method="temperature")
    assert str(caught.value) == (
        "temperature: expected log-probabilities, which are at most 0, found a score of 2.5; choose another method."
    )


@pytest.mark.parametrize(
    ("scores", "correct", "message"),
    [
        (
            [-1.0, -2.0],
            [True],
            "scores and correct: expected one of each per answer, found shapes (2,) and (1,)",
        ),
        ([-1.0, math.nan], [True, False], "scores: expected numbers, found 1 NaN"),
        (
            [-1.0, -math.inf],
            [True, False],
            "scores: expected finite numbers, found 1 infinite ones",
        ),
    ],
)
def test_bad_answers_are_named(scores: list[float], correct: list[bool], message: str) -> None:
    """Answers that can't be fitted are an error of one line."""
    with pytest.raises(InputError) as caught:
        fit_calibrator(scores, correct)
    assert str(caught.value).startswith(message)


@every_method
@settings(max_examples=30)
@given(ANSWERS)
def test_every_fit_keeps_the_order(method: Method, answers: Answers) -> None:
    """A better score has a higher confidence, as far as floats tell, or all confidences are the same."""
    scores, correct = ([score for score, _ in answers], [right for _, right in answers])
    fitted = fit_calibrator(scores, correct, method=method).calibrator
    shown = fitted.confidences(sorted({-4.0, -2.0, -1.5, -0.25, -0.01}))
    ends = (0.0, HIGHEST_CONFIDENCE)
    rises = [low < high or low == high in ends for low, high in itertools.pairwise(shown)]
    assert all(rises) or not any(rises)
