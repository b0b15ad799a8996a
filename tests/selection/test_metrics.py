"""Metrics of ranking and their intervals against hand-computed tables, scikit-learn and their definitions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from aspire_guard.errors import InputError
from aspire_guard.selection.metrics import (
    Interval,
    OperatingPoint,
    accuracy,
    auacc,
    aurc,
    auroc,
    bootstrap_difference,
    bootstrap_interval,
    brier,
    coverage_and_accuracy,
    e_aurc,
    risk_coverage_curve,
)

Answers = list[tuple[float, bool]]

# Few different scores, so that most examples hold ties.
ANSWERS = st.lists(
    st.tuples(st.sampled_from([-math.inf, -1.5, 0.0, 0.25, 2.0]), st.booleans()),
    min_size=1,
    max_size=7,
)


def test_accuracy_is_the_share_of_right_answers() -> None:
    """Booleans count the same as zeros and ones."""
    assert accuracy([True, False, True, True]) == 0.75
    assert accuracy(np.array([1, 0, 1, 1])) == 0.75


@pytest.mark.parametrize(
    ("scores", "correct", "expected"),
    [
        ([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0], 1.0),
        ([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0], 0.75),
        ([0.5, 0.5], [1, 0], 0.5),
        ([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0], 3.5 / 4),
        ([-math.inf, 0.0], [0, 1], 1.0),
    ],
)
def test_auroc_of_small_tables(scores: list[float], correct: list[int], expected: float) -> None:
    """It is the share of pairs in the right order, and a tie counts half."""
    assert auroc(scores, correct) == expected


@given(ANSWERS)
def test_auroc_is_its_definition(answers: Answers) -> None:
    """P(right scores higher than wrong) + ½ P(tie), over every pair."""
    right = [score for score, correct in answers if correct]
    wrong = [score for score, correct in answers if not correct]
    assume(right and wrong)
    wins = [1.0 if r > w else 0.5 if r == w else 0.0 for r, w in itertools.product(right, wrong)]
    assert auroc(*zip(*answers, strict=True)) == pytest.approx(sum(wins) / len(wins), abs=1e-12)


@pytest.mark.parametrize("decimals", [1, 8])
def test_auroc_agrees_with_scikit_learn(decimals: int) -> None:
    """They agree with many ties and without ties."""
    rng = np.random.default_rng(decimals)
    correct = rng.random(500) < 0.7
    scores = np.round(rng.normal(size=500) + correct, decimals)
    assert auroc(scores, correct) == pytest.approx(roc_auc_score(correct, scores), abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "correct", "expected"),
    [
        ([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0], (1 + 1 + 2 / 3 + 1 / 2) / 4),
        ([0.1, 0.2, 0.8, 0.9], [1, 1, 0, 0], (0 + 0 + 1 / 3 + 1 / 2) / 4),
        ([0.5, 0.5, 0.5, 0.5], [1, 0, 1, 1], 0.75),
        ([0.9, 0.5, 0.5], [0, 1, 0], (0 + 0.5 / 2 + 1 / 3) / 3),
        ([0.3], [0], 0.0),
    ],
)
def test_auacc_of_small_tables(scores: list[float], correct: list[int], expected: float) -> None:
    """The mean over n of the accuracy of the n highest-scored answers."""
    assert auacc(scores, correct) == pytest.approx(expected, abs=1e-15)


@given(ANSWERS)
def test_auacc_is_its_definition(answers: Answers) -> None:
    """The mean over every order of tied answers, n by n."""
    areas = []
    for order in itertools.permutations(answers):
        scores = [score for score, _ in order]
        if scores == sorted(scores, reverse=True):
            right = [correct for _, correct in order]
            areas.append(sum(sum(right[:n]) / n for n in range(1, len(right) + 1)) / len(right))
    assert auacc(*zip(*answers, strict=True)) == pytest.approx(sum(areas) / len(areas), abs=1e-12)


@given(ANSWERS.flatmap(lambda answers: st.tuples(st.just(answers), st.permutations(answers))))
def test_the_order_of_answers_does_not_matter(orders: tuple[Answers, Answers]) -> None:
    """Ties have no order of their own, so shuffling changes nothing."""
    one, other = (auacc(*zip(*answers, strict=True)) for answers in orders)
    assert one == pytest.approx(other, abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "correct", "area", "excess"),
    [
        ([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0], (0 + 0 + 1 / 3 + 1 / 2) / 4, 0.0),
        ([0.1, 0.2, 0.8, 0.9], [1, 1, 0, 0], (1 + 1 + 2 / 3 + 1 / 2) / 4, (1 + 1 + 1 / 3 + 0) / 4),
        ([0.5, 0.5], [1, 0], 0.5, 0.5 - (0 + 1 / 2) / 2),
        ([0.3, 0.4], [1, 1], 0.0, 0.0),
        ([0.3, 0.4], [0, 0], 1.0, 0.0),
    ],
)
def test_aurc_of_small_tables(
    scores: list[float], correct: list[int], area: float, excess: float
) -> None:
    """The mean over n of the risk of the n highest-scored answers, and the part that a perfect ranking would avoid."""
    assert aurc(scores, correct) == pytest.approx(area, abs=1e-15)
    assert e_aurc(scores, correct) == pytest.approx(excess, abs=1e-15)


@given(ANSWERS)
def test_no_ranking_has_less_area_than_the_excess_is_measured_from(answers: Answers) -> None:
    """AURC − E-AURC is the least AURC over every order of the answers."""
    scores, correct = zip(*answers, strict=True)
    least = min(aurc(range(len(correct)), order) for order in set(itertools.permutations(correct)))
    assert aurc(scores, correct) - e_aurc(scores, correct) == pytest.approx(least, abs=1e-12)


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (0.0, OperatingPoint(coverage=1.0, accuracy=0.5)),
        (0.5, OperatingPoint(coverage=0.75, accuracy=2 / 3)),
        (0.51, OperatingPoint(coverage=0.25, accuracy=1.0)),
        (0.95, OperatingPoint(coverage=0.0, accuracy=None)),
    ],
)
def test_a_threshold_buys_accuracy_with_coverage(
    threshold: float, expected: OperatingPoint
) -> None:
    """A score at the threshold is released. If nothing is released, there is no accuracy."""
    assert coverage_and_accuracy([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0], threshold) == expected


def test_the_interval_holds_the_value_and_repeats_under_its_seed() -> None:
    """Equal seeds give equal intervals, other seeds others."""
    rng = np.random.default_rng(1)
    correct = rng.random(300) < 0.6
    scores = rng.normal(size=300) + correct
    interval = bootstrap_interval(auroc, scores, correct)
    assert interval.value == auroc(scores, correct)
    assert interval.low < interval.value < interval.high
    assert bootstrap_interval(auroc, scores, correct) == interval
    assert bootstrap_interval(auroc, scores, correct, seed=1) != interval
    narrow = bootstrap_interval(auroc, scores, correct, level=0.5)
    assert interval.low < narrow.low < narrow.high < interval.high


def test_an_interval_draws_the_answers_to_a_question_together() -> None:
    """Ten copies of each answer have the interval of the answers themselves if the copies are drawn together."""
    rng = np.random.default_rng(8)
    correct = rng.random(40) < 0.5
    scores = rng.random(40) + correct
    questions = [i // 10 for i in range(400)]
    once = bootstrap_interval(auacc, scores, correct, resamples=50)
    together = bootstrap_interval(
        auacc, np.repeat(scores, 10), np.repeat(correct, 10), questions=questions, resamples=50
    )
    assert together.low == pytest.approx(once.low, abs=0.02)
    assert together.high == pytest.approx(once.high, abs=0.02)


def test_the_interval_of_an_accuracy_is_the_binomial_one() -> None:
    """The bootstrap of a mean of n = 400 at p = ½ is ± 1.96 · 0.025 wide."""
    correct = np.arange(400) % 2 == 0
    interval = bootstrap_interval(
        lambda _, right: accuracy(right), np.zeros(400), correct, resamples=4000
    )
    assert interval.value == 0.5
    assert interval.low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.004)
    assert interval.high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.004)


def test_the_interval_of_a_certain_metric_is_a_point() -> None:
    """If all answers are right, every resample says so."""
    assert bootstrap_interval(auacc, [0.1, 0.2, 0.3], [1, 1, 1], resamples=50) == Interval(
        1.0, 1.0, 1.0
    )


def test_resamples_with_one_class_are_drawn_again() -> None:
    """With one wrong answer of two, half of the resamples have no AUROC. The interval uses the others."""
    assert bootstrap_interval(auroc, [0.9, 0.1], [1, 0], resamples=20) == Interval(1.0, 1.0, 1.0)


def test_a_metric_that_resamples_do_not_define_is_an_error() -> None:
    """A metric that is NaN on every resample gives no interval."""

    def defined_once(scores: NDArray[np.float64], correct: NDArray[np.bool_]) -> float:
        return 1.0 if len(set(scores)) == 200 else math.nan

    with pytest.raises(
        InputError,
        match="bootstrap: expected a metric that is defined on most resamples, found 100 undefined",
    ):
        bootstrap_interval(defined_once, np.arange(200), np.ones(200))


@pytest.mark.parametrize("metric", [auroc, e_aurc, risk_coverage_curve, brier])
@pytest.mark.parametrize(
    ("scores", "correct", "message"),
    [
        (
            [],
            [],
            "correct: expected a list of at least one boolean, found shape (0,); evaluate some answers.",
        ),
        (
            [0.1, 0.2],
            [1],
            "scores and correct: expected one of each per answer, found shapes (2,) and (1,); pair them up.",
        ),
        (
            [math.nan, 0.2],
            [1, 0],
            "scores: expected numbers, found 1 NaN; leave these answers out or score them again.",
        ),
        (
            [0.1, 0.2],
            [0.3, 1.0],
            "correct: expected booleans, found float64 other than 0 and 1; apply a threshold first.",
        ),
        (
            ["high", "low"],
            [1, 0],
            "scores: expected numbers, found: could not convert string to float: 'high'; pass one score per answer.",
        ),
        (
            [[0.1]],
            [[1]],
            "correct: expected a list of at least one boolean, found shape (1, 1); evaluate some answers.",
        ),
    ],
)
def test_bad_input_is_named(
    metric: Callable[..., float], scores: list[float], correct: list[int], message: str
) -> None:
    """Each message says what was expected, what was found and the way out."""
    with pytest.raises(InputError) as caught:
        metric(scores, correct)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("correct", "found"), [([1, 1], "only right ones"), ([0, 0], "only wrong ones")]
)
def test_auroc_needs_both_classes(correct: list[int], found: str) -> None:
    """With one class there is no pair to compare."""
    with pytest.raises(InputError) as caught:
        auroc([0.1, 0.2], correct)
    assert (
        str(caught.value)
        == f"AUROC: expected right and wrong answers, found {found}; evaluate on more questions."
    )


def test_a_threshold_is_a_number() -> None:
    """NaN would release nothing without a word."""
    with pytest.raises(
        InputError, match=r"threshold: expected a number, found NaN; calibrate it again."
    ):
        coverage_and_accuracy([0.1], [1], math.nan)


@pytest.mark.parametrize("options", [{"resamples": 0}, {"level": 0.0}, {"level": 1.0}])
def test_bootstrap_options_are_checked(options: dict[str, float]) -> None:
    """There must be at least one resample, and a level inside (0, 1)."""
    with pytest.raises(
        InputError, match="bootstrap: expected resamples ≥ 1 and 0 < level < 1, found resamples="
    ):
        bootstrap_interval(auacc, [0.1], [1], **options)  # type: ignore[arg-type]


def test_a_paired_bootstrap_draws_the_same_questions_for_both() -> None:
    """By hand: the quantiles of the differences of two accuracies over the same draws."""
    rng = np.random.default_rng(5)
    first, second = rng.random(30) < 0.7, rng.random(30) < 0.5
    found = bootstrap_difference(
        lambda _, right: accuracy(right),
        (np.zeros(30), first),
        (np.zeros(30), second),
        resamples=200,
        seed=3,
    )
    draws = np.random.default_rng(3)
    by_hand = []
    for _ in range(200):
        index = draws.integers(30, size=30)
        by_hand.append(first[index].mean() - second[index].mean())
    assert found.value == pytest.approx(first.mean() - second.mean(), abs=1e-12)
    assert (found.low, found.high) == pytest.approx(
        tuple(np.quantile(by_hand, [0.025, 0.975])), abs=1e-12
    )


def test_the_answers_to_a_question_are_drawn_together() -> None:
    """An answer repeated ten times adds nothing: the interval is over the questions."""
    rng = np.random.default_rng(8)
    correct = rng.random(40) < 0.5
    first, second = (rng.random(40) + correct, correct), (rng.random(40), correct)
    once = bootstrap_difference(auroc, first, second, resamples=50)
    ten = [(np.repeat(scores, 10), np.repeat(right, 10)) for scores, right in (first, second)]
    questions = [f"q{i}" for i in range(40) for _ in range(10)]
    together = bootstrap_difference(auroc, ten[0], ten[1], questions=questions, resamples=50)
    apart = bootstrap_difference(auroc, ten[0], ten[1], resamples=50)
    assert together == pytest.approx(once)
    assert apart.high - apart.low < (once.high - once.low) / 2


def test_equal_scores_have_no_difference_and_no_interval() -> None:
    """The difficulty of a question for both cancels out: the unpaired intervals are wide, this one is a point."""
    rng = np.random.default_rng(6)
    pair = rng.random(40), rng.random(40) < 0.5
    assert bootstrap_difference(auroc, pair, pair, resamples=50) == Interval(0.0, 0.0, 0.0)


def test_the_difference_of_two_metrics_is_antisymmetric() -> None:
    """The other way round, value and interval change their sign."""
    rng = np.random.default_rng(7)
    correct = rng.random(40) < 0.5
    first, second = (rng.random(40) + correct, correct), (rng.random(40), correct)
    ahead = bootstrap_difference(auroc, first, second, resamples=200)
    behind = bootstrap_difference(auroc, second, first, resamples=200)
    assert ahead.value == auroc(*first) - auroc(*second)
    assert (behind.value, behind.low, behind.high) == pytest.approx(
        (-ahead.value, -ahead.high, -ahead.low), abs=1e-12
    )
    assert ahead.low > 0


def test_a_paired_bootstrap_needs_the_same_questions() -> None:
    """Unequal numbers can't be paired."""
    with pytest.raises(
        InputError, match="expected answers to the same questions, found 2 and 3; pair them up"
    ):
        bootstrap_difference(auroc, ([0.1, 0.2], [0, 1]), ([0.1, 0.2, 0.3], [0, 1, 1]))
