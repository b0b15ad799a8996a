"""Thresholds for a risk, a coverage, a cost, for bands and for groups: what they release, and what they promise."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from aspire_guard.errors import InputError
from aspire_guard.selection.calibration import Threshold
from aspire_guard.selection.calibrators import IsotonicCalibrator, PlattCalibrator
from aspire_guard.selection.risk_control.fixed_sequence import (
    find_fewest_released,
    risk_upper_bound,
)
from aspire_guard.selection.risk_control.thresholds import (
    Costs,
    UnmetTarget,
    choose_bands,
    choose_group_thresholds,
    choose_threshold,
)

TODAY = "2024-01-31"
PLATT = PlattCalibrator(slope=1.0, intercept=0.0)

Scores = NDArray[np.float64]
Labels = NDArray[np.bool_]

# Few different scores, so that most examples hold ties.
ANSWERS = st.lists(
    st.tuples(
        st.sampled_from([-3.0, -2.0, -1.0, -0.5, 0.0]),
        st.booleans(),
        st.sampled_from([0.0, 1.0, 2.5, 7.0]),
    ),
    min_size=1,
    max_size=60,
)


def _choose(scores: ArrayLike, correct: ArrayLike, **asked: Any) -> Threshold | UnmetTarget:
    settings: dict[str, Any] = {"calibrator": PLATT, "date": TODAY} | asked
    return choose_threshold(scores, correct, **settings)


def _get_threshold(threshold: Threshold | UnmetTarget) -> Threshold:
    assert isinstance(threshold, Threshold)
    return threshold


def _get_unmet_target(threshold: Threshold | UnmetTarget) -> UnmetTarget:
    assert isinstance(threshold, UnmetTarget)
    return threshold


def _draw_uniform(chance: np.random.Generator, n: int) -> tuple[Scores, Labels]:
    """Answers that are right with a uniform probability p. The score is its log-odds, so PLATT gives p itself."""
    p = chance.random(n)
    return np.log(p / (1 - p)), chance.random(n) < p


def test_a_threshold_by_hand() -> None:
    """Thirty right answers, then wrong ones only: 22 right ones pass at 0.1 / 0.1, and no wrong one passes before 38.

    The threshold lies right above the first answer left out, on the score and on the confidence.
    """
    scores = -np.arange(60) / 10
    threshold = _get_threshold(_choose(scores, np.arange(60) < 30, target_risk=0.1, delta=0.1))
    assert threshold.coverage == 0.5
    assert threshold.risk == 0.0
    assert threshold.selection_score == math.nextafter(-3.0, 0.0)
    assert threshold.confidence == math.nextafter(PLATT.confidence(-3.0), 1.0)
    assert (threshold.name, threshold.group, threshold.objective, threshold.target) == (
        "accept",
        None,
        "risk",
        0.1,
    )


def test_a_threshold_says_what_it_promises() -> None:
    """The bound is the target that was asked for, and the sentence says so."""
    threshold = _get_threshold(_choose(-np.arange(60.0), [True] * 60, target_risk=0.1, delta=0.1))
    assert threshold.risk_bound == 0.1
    assert threshold.guarantee is not None
    assert threshold.guarantee.method == "fixed sequences of exact binomial tests"
    assert threshold.guarantee.sentence == (
        "with probability 90 % over the calibration answers, at most 10 % of the released answers are wrong, "
        "for questions like the 60 calibrated on (2024-01-31)"
    )


def test_a_threshold_below_all_scores_releases_whatever_comes() -> None:
    """If all calibration answers may be released, so may an answer with a lower score than any of them."""
    threshold = _get_threshold(_choose(-np.arange(60.0), [True] * 60, target_risk=0.1))
    assert (threshold.confidence, threshold.coverage) == (0.0, 1.0)
    assert threshold.selection_score is not None
    assert threshold.selection_score < -1e300


@given(ANSWERS, st.sampled_from([0.2, 0.5]), st.booleans())
def test_what_is_reported_is_what_the_guard_would_release(
    answers: list[tuple[float, bool, float]], target: float, by_coverage: bool
) -> None:
    """Coverage and risk are computed on the answers whose confidence, or whose score, reaches the threshold."""
    scores, correct = np.array([row[0] for row in answers]), np.array([row[1] for row in answers])
    asked = {"target_coverage": target} if by_coverage else {"target_risk": target, "delta": 0.3}
    threshold = _choose(scores, correct, **asked)
    if isinstance(threshold, UnmetTarget):
        return
    released = PLATT.confidences(scores) >= threshold.confidence
    assert released.mean() == threshold.coverage
    assert (~correct[released]).mean() == threshold.risk
    assert (released == (scores >= threshold.selection_score)).all()


def test_one_confidence_for_all_is_one_tie() -> None:
    """A flat line parts no answers, whatever their scores: all are released, or none."""
    flat = PlattCalibrator(slope=0.0, intercept=0.0)
    scores = -np.arange(60.0)
    mixed = _get_unmet_target(_choose(scores, np.arange(60) < 40, target_risk=0.1, calibrator=flat))
    assert mixed.more_needed is None
    assert (
        _get_threshold(_choose(scores, [True] * 60, target_risk=0.1, calibrator=flat)).coverage
        == 1.0
    )


def test_no_threshold_parts_answers_of_one_confidence() -> None:
    """Two scores a float apart share a confidence. The threshold goes above both, never between them."""
    close = math.nextafter(-1.0, 0.0)
    scores = [*[2.0] * 30, close, -1.0, *[-2.0] * 10]
    correct = [*[True] * 31, False, *[False] * 10]
    level = IsotonicCalibrator(knots=(-2.0, 2.0), values=(0.1, 0.9))
    assert level.confidence(close) == level.confidence(-1.0)
    threshold = _get_threshold(
        _choose(scores, correct, target_risk=0.1, delta=0.1, calibrator=level)
    )
    released = level.confidences(np.array(scores)) >= threshold.confidence
    assert threshold.coverage == released.mean()
    assert released[30] == released[31]


def test_no_threshold_says_what_could_have_been_promised() -> None:
    """Twenty right answers of twenty: 0.05 is out of reach, 1 − 0.05^(1/20) = 0.139 would have been within it."""
    sure = PlattCalibrator(slope=0.1, intercept=6.0)
    missing = _get_unmet_target(
        _choose(-np.arange(20.0), [True] * 20, target_risk=0.05, calibrator=sure)
    )
    assert (missing.best_risk, missing.best_coverage) == (0.14, 1.0)
    assert isinstance(_choose(-np.arange(20.0), [True] * 20, target_risk=0.14), Threshold)
    assert missing.sentence.startswith(
        "no threshold keeps wrong answers at 5 % of the released ones or fewer with probability 95 %; "
        "the least that could have been promised is 14 %, at a coverage of 100 %; about "
    )


def test_where_all_is_wrong_nothing_can_be_promised() -> None:
    """No threshold, no best, and more of the same would not help."""
    calibrator = PlattCalibrator(slope=0.0, intercept=-4.0)
    missing = _get_unmet_target(
        _choose(-np.arange(20.0), [False] * 20, target_risk=0.1, calibrator=calibrator)
    )
    assert (missing.best_risk, missing.best_coverage, missing.more_needed) == (1.0, 0.0, None)
    assert missing.sentence.endswith(
        "no share could have been promised; more answers like these would not change that"
    )


def test_as_many_more_answers_as_advised_mostly_do() -> None:
    """Most of 50 sets of 100 answers without a threshold have one once the missing answers are added."""
    chance, advised, done = np.random.default_rng(0), 0, 0
    while advised < 50:
        scores, correct = _draw_uniform(chance, 100)
        first = _choose(scores, correct, target_risk=0.1, delta=0.1)
        if isinstance(first, UnmetTarget):
            assert first.more_needed is not None
            more_scores, more_correct = _draw_uniform(chance, first.more_needed)
            second = _choose(
                [*scores, *more_scores], [*correct, *more_correct], target_risk=0.1, delta=0.1
            )
            advised, done = advised + 1, done + isinstance(second, Threshold)
    assert 25 <= done <= 48


def test_a_promise_holds_from_end_to_end() -> None:
    """400 draws of 300 answers: the true risk of what the confidence releases exceeds the target in δ of them at most.

    With P(right) uniform and the confidence P(right) itself, the answers at or above t are wrong at (1 − t) / 2.
    """
    chance, exceeded, found = np.random.default_rng(1), 0, 0
    for _ in range(400):
        threshold = _choose(*_draw_uniform(chance, 300), target_risk=0.2, delta=0.1)
        if isinstance(threshold, Threshold):
            found += 1
            exceeded += (1 - threshold.confidence) / 2 > 0.2
    assert found > 250
    assert exceeded / 400 <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / 400)


def _mapie(confidence: Scores, correct: Labels, target: float, delta: float, **options: Any) -> Any:
    from mapie.risk_control import BinaryClassificationController

    controller = BinaryClassificationController(
        lambda column: np.column_stack([1 - column[:, 0], column[:, 0]]),
        risk="precision",
        target_level=1 - target,
        confidence_level=1 - delta,
        **options,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where it finds none
        return controller.calibrate(confidence[:, None], correct.astype(int))


@pytest.mark.parametrize("seed", range(3))
def test_mapies_fixed_sequence_on_the_same_candidates_agrees(seed: int) -> None:
    """With as few answers as one run needs, MAPIE's fixed sequence from the same start agrees."""
    scores, correct = _draw_uniform(np.random.default_rng(seed), 40)
    confidence = PLATT.confidences(scores)
    start = find_fewest_released(0, 0.25, 0.125)
    candidates = np.sort(confidence)[::-1][start - 1 :]
    valid = _mapie(
        confidence,
        correct,
        0.25,
        0.125,
        list_predict_params=candidates,
        fwer_method="fixed_sequence",
    ).valid_predict_params
    threshold = _choose(scores, correct, target_risk=0.25, delta=0.125)
    if isinstance(threshold, UnmetTarget):
        assert len(valid) == 0
    else:
        assert confidence[confidence >= threshold.confidence].min() == valid.min()


def test_more_is_found_and_released_than_by_mapies_defaults() -> None:
    """The draws of uniform P(right), n = 1,000, at 0.1 / 0.1, of which MAPIE's default grid finds one in six."""
    chance, coverage, found = np.random.default_rng(0), np.zeros(2), np.zeros(2)
    for _ in range(60):
        scores, correct = _draw_uniform(chance, 1000)
        confidence = PLATT.confidences(scores)
        ours = _choose(scores, correct, target_risk=0.1, delta=0.1)
        mapies = _mapie(confidence, correct, 0.1, 0.1).best_predict_param
        least = (
            ours.confidence if isinstance(ours, Threshold) else math.inf,
            math.inf if mapies is None else mapies,
        )
        coverage += [(confidence >= value).mean() for value in least]
        found += np.isfinite(least)
    assert found[0] > 40
    assert found[1] < 20
    assert coverage[0] > 3 * coverage[1]


def test_a_target_coverage_is_reached_with_a_bound() -> None:
    """70 of 100 answers, none of them wrong: the bound is Clopper–Pearson's at δ/2, rounded up to four digits."""
    threshold = _get_threshold(_choose(-np.arange(100.0), np.arange(100) < 80, target_coverage=0.7))
    assert (threshold.coverage, threshold.risk, threshold.objective) == (0.7, 0.0, "coverage")
    assert threshold.risk_bound == math.ceil(1e4 * float(risk_upper_bound(0, 70, 0.025))) / 1e4
    assert threshold.guarantee is not None
    assert threshold.guarantee.target_risk == threshold.risk_bound


@pytest.mark.parametrize("target", [0.07, 0.3, 1.0])
def test_a_coverage_is_not_overshot_by_rounding(target: float) -> None:
    """0.07 of 100 is seven answers, though the product of the floats is a little more."""
    assert (
        _get_threshold(_choose(-np.arange(100.0), [True] * 100, target_coverage=target)).coverage
        == target
    )


def test_a_coverage_promises_nothing_if_all_is_wrong() -> None:
    """A bound of 1 promises nothing."""
    threshold = _get_threshold(_choose(-np.arange(10.0), [False] * 10, target_coverage=0.5))
    assert (threshold.coverage, threshold.risk_bound, threshold.guarantee) == (0.5, None, None)


@given(ANSWERS, st.sampled_from([0.5, 1.0, 3.0]), st.booleans())
def test_no_threshold_is_cheaper_than_the_chosen_one(
    answers: list[tuple[float, bool, float]], abstain: float, own_costs: bool
) -> None:
    """Against the mean cost of every candidate, releasing nothing included."""
    scores, correct = np.array([row[0] for row in answers]), np.array([row[1] for row in answers])
    each = np.array([row[2] for row in answers]) if own_costs else np.full(len(answers), 2.0)
    asked = {"wrong_costs": each} if own_costs else {}
    threshold = _get_threshold(
        _choose(scores, correct, cost=Costs(wrong=2.0, abstain=abstain), **asked)
    )

    def mean_cost(released: NDArray[np.bool_]) -> float:
        return float(np.where(released, each * ~correct, abstain).mean())

    chosen = mean_cost(PLATT.confidences(scores) >= threshold.confidence)
    assert threshold.target == pytest.approx(chosen, abs=1e-12)
    assert threshold.guarantee is None
    for candidate in (*scores, math.inf):
        assert chosen <= mean_cost(scores >= candidate) + 1e-12


def test_where_an_error_costs_most_nothing_is_released() -> None:
    """Wrong answers only: abstaining is cheaper, and the threshold of 1 says so."""
    threshold = _get_threshold(
        _choose([-1.0, -2.0], [False, False], cost=Costs(wrong=5.0, abstain=1.0))
    )
    assert (threshold.confidence, threshold.selection_score, threshold.coverage) == (1.0, None, 0.0)
    assert (threshold.risk, threshold.target) == (None, 1.0)


def test_the_least_cost_is_sought_among_cuts_that_keep_the_risk() -> None:
    """Errors are cheap, so all would be released, but the promise limits it and brings a guarantee."""
    scores, correct = -np.arange(200.0), np.arange(200) < 100
    cheap = Costs(wrong=0.1, abstain=1.0)
    free = _get_threshold(_choose(scores, correct, cost=cheap))
    kept = _get_threshold(_choose(scores, correct, cost=cheap, target_risk=0.2))
    assert (free.coverage, free.guarantee) == (1.0, None)
    assert kept.coverage == _get_threshold(_choose(scores, correct, target_risk=0.2)).coverage
    assert (kept.objective, kept.risk_bound) == ("cost", 0.2)
    dear = _get_threshold(
        _choose(scores, correct, cost=Costs(wrong=9.0, abstain=1.0), target_risk=0.2)
    )
    assert (dear.coverage, dear.risk) == (0.5, 0.0)


def test_bands_hold_together_and_lie_in_order() -> None:
    """Each band has half of δ, and the looser one opens further down."""
    scores, correct = _draw_uniform(np.random.default_rng(5), 2000)
    found = choose_bands(
        scores, correct, {"show": 0.3, "accept": 0.1}, calibrator=PLATT, date=TODAY, delta=0.1
    )
    assert list(found) == ["show", "accept"]
    show, accept = _get_threshold(found["show"]), _get_threshold(found["accept"])
    assert show.confidence < accept.confidence
    assert (
        accept.coverage
        == _get_threshold(_choose(scores, correct, target_risk=0.1, delta=0.05)).coverage
    )
    assert accept.guarantee is not None
    assert (accept.guarantee.family, accept.guarantee.delta, accept.name) == (2, 0.1, "accept")
    assert "for all 2 thresholds at once" in accept.guarantee.sentence


def test_a_band_without_a_threshold_says_so() -> None:
    """One band may be found and a stricter one not."""
    found = choose_bands(
        -np.arange(40.0),
        [True] * 40,
        {"accept": 0.01, "show": 0.2},
        calibrator=PLATT,
        date=TODAY,
        delta=0.1,
    )
    assert _get_unmet_target(found["accept"]).name == "accept"
    assert _get_threshold(found["show"]).name == "show"


@settings(max_examples=50)
@given(ANSWERS, st.permutations([0.1, 0.2, 0.3, 0.5]))
def test_a_looser_band_never_releases_less(
    answers: list[tuple[float, bool, float]], targets: list[float]
) -> None:
    """For any answers, a threshold that keeps a stricter promise keeps the looser one."""
    found = choose_bands(
        [row[0] for row in answers],
        [row[1] for row in answers],
        {str(target): target for target in targets},
        calibrator=PLATT,
        date=TODAY,
        delta=0.4,
    )
    ordered = [found[str(target)] for target in sorted(targets)]
    coverage = [item.coverage if isinstance(item, Threshold) else 0.0 for item in ordered]
    assert coverage == sorted(coverage, key=lambda value: value or 0.0)


def test_groups_are_judged_on_their_own_answers() -> None:
    """Two groups, one right and one wrong: δ is halved, the right one is released as a whole and the other not."""
    scores = np.tile(-np.arange(60.0), 2)
    groups = ["billing"] * 60 + ["legal"] * 60
    found = choose_group_thresholds(
        scores, [True] * 60 + [False] * 60, groups, 0.1, calibrator=PLATT, date=TODAY
    )
    billing, legal = _get_threshold(found["billing"]), _get_unmet_target(found["legal"])
    assert (billing.group, billing.coverage) == ("billing", 1.0)
    assert billing.guarantee is not None
    assert (billing.guarantee.n, billing.guarantee.family, billing.guarantee.delta) == (60, 2, 0.05)
    assert legal.group == "legal"


def test_groups_too_small_for_any_threshold_leave_delta_to_the_others() -> None:
    """Nothing can be promised for fifty groups of two answers, so the group of sixty has all of δ."""
    scores = -np.arange(160.0)
    groups = ["large"] * 60 + [f"small-{i // 2}" for i in range(100)]
    found = choose_group_thresholds(
        scores, [True] * 160, groups, 0.05, calibrator=PLATT, date=TODAY
    )
    large = _get_threshold(found["large"])
    assert large.guarantee is not None
    assert large.guarantee.family == 1
    assert all(isinstance(item, UnmetTarget) for name, item in found.items() if name != "large")


def test_as_many_groups_share_delta_as_can_each_pass() -> None:
    """Sixty and 59 right answers pass at 0.05 alone. Together they need 72 each, so only the larger group is tried."""
    groups = ["a"] * 60 + ["b"] * 59
    found = choose_group_thresholds(
        -np.arange(119.0), [True] * 119, groups, 0.05, calibrator=PLATT, date=TODAY
    )
    assert find_fewest_released(0, 0.05, 0.05) == 59
    assert find_fewest_released(0, 0.05, 0.025) == 72
    assert isinstance(found["a"], Threshold)
    assert isinstance(found["b"], UnmetTarget)


def test_every_group_keeps_its_promise_at_once() -> None:
    """300 draws of three groups a hair above the target: all certified groups are errors, in δ of the draws at most."""
    chance, failures = np.random.default_rng(2), 0
    for _ in range(300):
        scores, groups = chance.random(150), chance.choice(["a", "b", "c"], 150)
        found = choose_group_thresholds(
            scores,
            chance.random(150) >= 0.201,
            groups,
            0.2,
            calibrator=PLATT,
            date=TODAY,
            delta=0.2,
        )
        failures += any(isinstance(item, Threshold) for item in found.values())
    assert 0.03 < failures / 300 <= 0.2 + 3 * math.sqrt(0.2 * 0.8 / 300)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {},
            "expected a target risk, a target coverage, costs, or a target risk with costs, found none",
        ),
        ({"target_risk": 0.1, "target_coverage": 0.5}, "found a target coverage and another"),
        ({"target_risk": 0.0}, "target risk: expected a share between 0 and 1, found 0"),
        ({"target_risk": math.nan}, "target risk: expected a share between 0 and 1, found nan"),
        ({"target_risk": 0.1, "delta": 1.0}, "delta: expected a share between 0 and 1, found 1"),
        (
            {"target_coverage": 0.0},
            "target coverage: expected a share above 0 and up to 1, found 0",
        ),
        (
            {"cost": Costs(wrong=1, abstain=1), "wrong_costs": [1.0]},
            "wrong_costs: expected one per answer",
        ),
        (
            {"cost": Costs(wrong=1, abstain=1), "wrong_costs": [1.0, -1.0]},
            "found one below 0 or not finite",
        ),
    ],
)
def test_a_mistaken_request_is_explained(asked: dict[str, Any], message: str) -> None:
    """One line: expected, found, way out."""
    with pytest.raises(InputError, match=message) as error:
        _choose([-1.0, -2.0], [True, False], **asked)
    assert "\n" not in str(error.value)


def test_bands_and_groups_must_be_named() -> None:
    """No bands, and a group too few, are mistakes of the caller."""
    with pytest.raises(InputError, match="bands: expected one or more, found none"):
        choose_bands([-1.0], [True], {}, calibrator=PLATT, date=TODAY)
    with pytest.raises(
        InputError, match=r"groups: expected one per answer, found shapes \(1,\) and \(2,\)"
    ):
        choose_group_thresholds(
            [-1.0, -2.0], [True, True], ["a"], 0.1, calibrator=PLATT, date=TODAY
        )
