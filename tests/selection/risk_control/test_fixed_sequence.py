"""Exact tests of a threshold's risk, and runs of them that hold together on scores of every shape."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom

from aspire_guard.errors import InputError
from aspire_guard.selection.risk_control.fixed_sequence import (
    RankedAnswers,
    Run,
    Start,
    binomial_p_value,
    choose_bounded_rank,
    find_certified_runs,
    find_fewest_released,
    has_certified_rank,
    plan_starts,
    rank_answers,
    risk_upper_bound,
)

Law = tuple[list[float], list[float]]

RISKS = st.sampled_from([0.05, 0.1, 0.3, 0.5])
DELTAS = st.sampled_from([0.01, 0.05, 0.1, 0.3])
# Few different scores, so that most examples hold ties.
ANSWERS = st.lists(
    st.tuples(st.sampled_from([-3.0, -2.0, -1.0, -0.5, 0.0]), st.booleans()),
    min_size=1,
    max_size=80,
)

# Discrete laws, shares and error rates from the highest score down, whose risk goes just above and just below a target
# of 0.2 from candidate to candidate: those that miss it do so by next to nothing, between others that keep it.
TIED: list[Law] = [
    ([0.25, 0.14, 0.2, 0.14, 0.27], [0.2006, 0.199, 0.1993, 0.1986, 0.204]),
    ([0.5, 0.25, 0.25], [0.203, 0.19, 0.22]),
    ([0.1, 0.3, 0.6], [0.1, 0.236, 0.202]),
]


def _draw(
    law: Law, chance: np.random.Generator, n: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    shares, errors = law
    place = chance.choice(len(shares), size=n, p=shares)
    return -place.astype(float), chance.random(n) >= np.array(errors)[place]


def _true_risk(law: Law, least_place: int) -> float:
    shares, errors = np.array(law[0]), np.array(law[1])
    return float((shares * errors)[: least_place + 1].sum() / shares[: least_place + 1].sum())


def _is_in_runs(rank: int, runs: list[Run]) -> bool:
    return any(run.first <= rank <= run.last for run in runs)


def _certified_ranks(ranked: RankedAnswers, target: float, delta: float) -> list[int]:
    ranks = np.flatnonzero(ranked.is_candidate) + 1
    runs = find_certified_runs(ranked, target, delta)
    return [rank for rank in ranks.tolist() if _is_in_runs(rank, runs)]


def test_the_p_value_is_the_binomial_tail() -> None:
    """By hand: no wrong answer of 22 at 0.1 is 0.9²², at most one of three at ½ is 4/8, and no answers at all is 1."""
    assert binomial_p_value(0, 22, 0.1) == pytest.approx(0.9**22, rel=1e-12)
    assert binomial_p_value(1, 3, 0.5) == pytest.approx(0.5, rel=1e-12)
    assert binomial_p_value([0, 3], [0, 3], 0.1).tolist() == [1.0, 1.0]


@given(st.integers(0, 300), st.integers(0, 300), RISKS)
def test_the_p_value_agrees_with_scipys_distribution(wrong: int, right: int, target: float) -> None:
    """The special function is the distribution's."""
    assert binomial_p_value(wrong, wrong + right, target) == pytest.approx(
        binom.cdf(wrong, wrong + right, target), rel=1e-9
    )


@pytest.mark.parametrize(
    ("target", "delta", "fewest"), [(0.1, 0.1, 22), (0.05, 0.05, 59), (0.2, 0.05, 14)]
)
def test_a_threshold_takes_so_many_right_answers(target: float, delta: float, fewest: int) -> None:
    """m answers without an error pass from log δ / log(1 − target) on."""
    assert (
        find_fewest_released(0, target, delta)
        == fewest
        == math.ceil(math.log(delta) / math.log(1 - target))
    )


@given(st.integers(0, 30), RISKS, DELTAS)
def test_one_answer_fewer_does_not_pass(wrong: int, target: float, delta: float) -> None:
    """The fewest answers that pass pass, and one fewer do not."""
    fewest = find_fewest_released(wrong, target, delta)
    assert binomial_p_value(wrong, fewest, target) <= delta
    assert fewest - 1 == wrong or binomial_p_value(wrong, fewest - 1, target) > delta


def test_clopper_and_pearson_by_hand() -> None:
    """For ten right answers it is 1 − δ^(1/10), and for wrong answers alone it is 1."""
    assert risk_upper_bound(0, 10, 0.05) == pytest.approx(1 - 0.05**0.1, rel=1e-12)
    assert risk_upper_bound([10, 0], [10, 0], 0.05).tolist() == [1.0, 1.0]


@given(st.integers(0, 60), st.integers(1, 60), RISKS, DELTAS)
def test_the_bound_is_the_test_turned_round(
    wrong: int, right: int, target: float, delta: float
) -> None:
    """The bound is at most the target exactly where the test passes."""
    passes = binomial_p_value(wrong, wrong + right, target) <= delta
    assert bool(risk_upper_bound(wrong, wrong + right, delta) <= target) == passes


@given(ANSWERS, st.randoms(use_true_random=False))
def test_ranking_forgets_the_order_of_the_file(
    answers: list[tuple[float, bool]], random: object
) -> None:
    """The same answers in another order are ranked the same, ties included."""
    shuffled = list(answers)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = (
        rank_answers(*map(list, zip(*these, strict=True))) for these in (answers, shuffled)
    )
    assert [part.tolist() for part in first] == [part.tolist() for part in second]


@given(ANSWERS)
def test_a_candidate_counts_the_answers_above_it(answers: list[tuple[float, bool]]) -> None:
    """At every candidate the wrong answers with higher scores are counted. Inside a tie there is no candidate."""
    ranked = rank_answers([score for score, _ in answers], [right for _, right in answers])
    for rank in range(1, len(answers) + 1):
        least = ranked.score[rank - 1]
        assert ranked.is_candidate[rank - 1] == (rank == len(answers) or ranked.score[rank] < least)
        if ranked.is_candidate[rank - 1]:
            assert ranked.wrong[rank - 1] == sum(
                not right for score, right in answers if score >= least
            )


def test_a_tie_is_in_an_order_that_labels_do_not_know() -> None:
    """A thousand tied answers, half of them wrong, are mixed: neither half comes first."""
    ranked = rank_answers(np.zeros(1000), np.arange(1000) < 500)
    assert 200 < ranked.wrong[499] < 300


@pytest.mark.parametrize("score", [math.inf, -math.inf])
def test_an_infinite_score_is_not_a_score(score: float) -> None:
    """Nothing lies above it, so no threshold could lie there."""
    with pytest.raises(InputError, match="expected finite numbers, found"):
        rank_answers([0.0, score], [True, False])


@given(st.integers(1, 5000), RISKS, DELTAS)
def test_runs_share_delta_among_ranks_that_exist(n: int, target: float, delta: float) -> None:
    """However many runs start, their shares add up to δ at most. No run starts if nothing could pass."""
    begun = plan_starts(n, target, delta)
    assert sum(start.share for start in begun) <= delta * (1 + 1e-12)
    assert all(
        1 <= start.rank <= n and binomial_p_value(0, start.rank, target) <= start.share
        for start in begun
    )
    assert bool(begun) == (n >= find_fewest_released(0, target, delta))


def test_with_few_answers_one_run_has_all_of_delta() -> None:
    """Nothing is set aside for runs that could not end."""
    assert plan_starts(100, 0.1, 0.1) == [Start(22, 0.1, at_candidate=False)]


def test_more_answers_start_more_runs() -> None:
    """At n = 1,000 the first run may start with one error, a later one with eight, and the next at a candidate."""
    first, second, third = plan_starts(1000, 0.1, 0.1)[:3]
    assert first.share == pytest.approx(0.07)
    assert (first.rank, first.at_candidate) == (find_fewest_released(1, 0.1, first.share), False)
    assert (second.rank, second.at_candidate) == (find_fewest_released(8, 0.1, second.share), False)
    assert (
        find_fewest_released(9, 0.1, third.share)
        < third.rank
        < find_fewest_released(10, 0.1, third.share)
    )
    assert third.at_candidate


@given(st.lists(st.integers(0, 9), min_size=1, max_size=400), RISKS, DELTAS)
def test_a_run_goes_on_until_a_test_fails(luck: list[int], target: float, delta: float) -> None:
    """The runs follow the definition: rank after rank from each start."""
    correct = [value > 1 for value in luck]
    ranked = rank_answers(-np.arange(len(luck), dtype=float), correct)
    expected = []
    for first, share, _ in plan_starts(len(luck), target, delta):
        last = first - 1
        while (
            last < len(luck)
            and binom.cdf(correct[: last + 1].count(False), last + 1, target) <= share
        ):
            last += 1
        expected += [Run(first, last)] if last >= first else []
    assert find_certified_runs(ranked, target, delta) == expected


def test_a_run_crosses_the_blocks_in_which_it_is_computed() -> None:
    """Ten thousand right answers and a late crowd of wrong ones: the run ends where the binomial says, not before."""
    correct = np.arange(20_000) < 10_000
    ranked = rank_answers(-np.arange(20_000.0), correct)
    run = find_certified_runs(ranked, 0.1, 0.1)[0]
    share = plan_starts(20_000, 0.1, 0.1)[0].share
    assert run.last > 10_000
    assert binom.cdf(run.last - 10_000, run.last, 0.1) <= share
    assert binom.cdf(run.last + 1 - 10_000, run.last + 1, 0.1) > share


def test_a_run_that_starts_at_a_candidate_passes_over_the_rest_of_a_block() -> None:
    """500 good answers with one score, and 500 wrong ones with another: only runs from the candidate on can certify it.

    Each run that starts at a rank within the second block, where most answers are wrong, fails at once.
    """
    ranked = rank_answers(np.repeat([1.0, 0.0], 500), np.arange(1000) < 480)
    from_the_candidate = [
        start for start in plan_starts(1000, 0.1, 0.1) if start.at_candidate and start.rank >= 600
    ]
    assert len(from_the_candidate) >= 2
    runs = find_certified_runs(ranked, 0.1, 0.1)
    assert sum(run.first == 500 for run in runs) == len(from_the_candidate)
    assert not any(run.first > 550 for run in runs)


@given(ANSWERS, RISKS, DELTAS)
def test_the_quick_question_has_the_same_answer(
    answers: list[tuple[float, bool]], target: float, delta: float
) -> None:
    """The question is answered the same with and without looking for all certified ranks."""
    ranked = rank_answers([score for score, _ in answers], [right for _, right in answers])
    ranks = np.flatnonzero(ranked.is_candidate) + 1
    assert has_certified_rank(ranked, ranks, target, delta) == bool(
        _certified_ranks(ranked, target, delta)
    )


@pytest.mark.parametrize("law", TIED)
@pytest.mark.parametrize("n", [30, 200])
def test_no_candidate_of_a_tied_law_is_certified_in_error_too_often(law: Law, n: int) -> None:
    """A candidate above the target is certified in δ of 1,000 draws at most, and three standard errors."""
    target, delta, draws = 0.2, 0.2, 1000
    chance = np.random.default_rng(n)
    errors = 0
    for _ in range(draws):
        ranked = rank_answers(*_draw(law, chance, n))
        certified = _certified_ranks(ranked, target, delta)
        errors += any(_true_risk(law, int(-ranked.score[rank - 1])) > target for rank in certified)
    assert errors / draws <= delta + 3 * math.sqrt(delta * (1 - delta) / draws)


def test_a_risk_a_hair_above_the_target_uses_delta_up_and_no_more() -> None:
    """Scores that say nothing, errors at 0.2001: every certified candidate is an error, and δ bounds all at once.

    The best of all candidates on their own p-values, which is what the runs guard against, errs twice as often.
    """
    target, delta, draws, n = 0.2, 0.2, 1000, 200
    chance = np.random.default_rng(7)
    errors = naive = 0
    for _ in range(draws):
        ranked = rank_answers(chance.random(n), chance.random(n) >= target + 1e-4)
        errors += bool(find_certified_runs(ranked, target, delta))
        naive += bool((binomial_p_value(ranked.wrong, np.arange(1, n + 1), target) <= delta).any())
    limit = delta + 3 * math.sqrt(delta * (1 - delta) / draws)
    assert 0.1 < errors / draws <= limit
    assert naive / draws > 2 * delta


def test_a_bounded_candidate_without_ties_has_half_of_delta() -> None:
    """Sixty of a hundred answers, ten of them wrong: Clopper–Pearson at δ/2, the rest being kept for ties."""
    ranked = rank_answers(-np.arange(100.0), [i % 6 != 0 for i in range(100)])
    assert choose_bounded_rank(ranked, np.arange(1, 101), 60, 0.1) == (
        60,
        float(risk_upper_bound(10, 60, 0.05)),
    )


def test_all_answers_need_no_ranks_to_choose_from() -> None:
    """If all answers are to be released, there is one candidate, with all of δ."""
    ranked = rank_answers(-np.arange(10.0), [True] * 9 + [False])
    assert choose_bounded_rank(ranked, np.arange(1, 11), 10, 0.1) == (
        10,
        float(risk_upper_bound(1, 10, 0.1)),
    )


@pytest.mark.parametrize("law", TIED)
def test_the_bound_at_a_coverage_holds_with_ties(law: Law) -> None:
    """The risk bound of at least 60 % fails in δ of 1,000 draws at most, and three standard errors."""
    delta, draws, n = 0.2, 1000, 60
    chance = np.random.default_rng(3)
    failures = 0
    for _ in range(draws):
        ranked = rank_answers(*_draw(law, chance, n))
        rank, bound = choose_bounded_rank(
            ranked, np.flatnonzero(ranked.is_candidate) + 1, 36, delta
        )
        assert rank >= 36
        assert ranked.is_candidate[rank - 1]
        failures += _true_risk(law, int(-ranked.score[rank - 1])) > bound
    assert failures / draws <= delta + 3 * math.sqrt(delta * (1 - delta) / draws)
