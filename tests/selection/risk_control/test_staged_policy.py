"""Two stages together: what a policy does to each question, what it costs, and what it promises."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from aspire_guard.errors import InputError
from aspire_guard.selection.calibrators import PlattCalibrator
from aspire_guard.selection.risk_control.candidate_thresholds import UnmetTarget
from aspire_guard.selection.risk_control.policy_grid import PolicyGrid, StagedCosts
from aspire_guard.selection.risk_control.staged_policy import StagedPolicy, choose_staged_policy

TODAY = "2024-01-31"
PLATT = {
    "answer": PlattCalibrator(slope=1.0, intercept=0.0),
    "fallback": PlattCalibrator(slope=2.0, intercept=0.5),
}
COSTS = StagedCosts(wrong=10.0, abstain=3.0, fallback=0.5, review=2.0)

Numbers = NDArray[np.float64]


class Records(NamedTuple):
    """Scores and labels of both stages' answers, `(n, 2)` each."""

    score: Numbers
    correct: NDArray[np.bool_]

    @property
    def confidence(self) -> Numbers:
        """The confidences of a calibrator a stage, `(n, 2)`."""
        columns = zip(PLATT.values(), self.score.T, strict=True)
        return np.column_stack([calibrator.confidences(scores) for calibrator, scores in columns])

    def part(self, rows: Any) -> Records:
        """Some of the records."""
        return Records(self.score[rows], self.correct[rows])


RECORDS = st.lists(
    st.tuples(
        st.sampled_from([-3.0, -1.0, 0.0, 2.0]),
        st.booleans(),
        st.sampled_from([-2.0, -0.5, 1.0]),
        st.booleans(),
    ),
    min_size=2,
    max_size=40,
)


def _make_staged(records: list[tuple[float, bool, float, bool]]) -> Records:
    return Records(
        np.array([[row[0], row[2]] for row in records]),
        np.array([[row[1], row[3]] for row in records]),
    )


def _draw(chance: np.random.Generator, n: int) -> Records:
    """Make scores that are the log-odds of being right. The fallback is right more often."""
    scores = np.column_stack([chance.normal(1.0, 1.5, n), chance.normal(2.0, 1.5, n)])
    return Records(scores, chance.random((n, 2)) < 1 / (1 + np.exp(-scores)))


def _choose(records: Records, **asked: Any) -> StagedPolicy | UnmetTarget:
    settings: dict[str, Any] = {"costs": COSTS, "date": TODAY} | asked
    return choose_staged_policy(records.confidence, records.correct, **settings)


def _get_policy(policy: StagedPolicy | UnmetTarget) -> StagedPolicy:
    assert isinstance(policy, StagedPolicy)
    return policy


def _outcome(
    policy: StagedPolicy, records: Records, costs: StagedCosts
) -> tuple[float, float, float, float]:
    """Coverage, share asked, risk and mean cost, question by question as a guard would go."""
    released = wrong = asked = 0
    cost = 0.0
    rows = zip(records.confidence.tolist(), records.correct.tolist(), strict=True)
    for (answer, fallback), correct in rows:
        step: str = policy.after_answer(answer)
        right = correct[0]
        if step == "fallback":
            asked, cost, right = asked + 1, cost + costs.fallback, correct[1]
            step = policy.after_fallback(fallback)
        if step == "accept":
            released, wrong, cost = (
                released + 1,
                wrong + (not right),
                cost + costs.wrong * (not right),
            )
        else:
            cost += costs.review if step == "review" and costs.review is not None else costs.abstain
    n = len(records.score)
    return released / n, asked / n, wrong / released if released else math.nan, cost / n


def test_the_figures_match_the_testing_half_computed_by_hand() -> None:
    """Coverage, share asked, risk and cost, for the half of the records that chance left for testing."""
    staged = _draw(np.random.default_rng(0), 1000)
    policy = _get_policy(_choose(staged, target_risk=0.1))
    half = np.array_split(np.random.default_rng(0).permutation(1000), 2)[1]
    assert _outcome(policy, staged.part(half), COSTS) == pytest.approx(
        (policy.coverage, policy.asked, policy.risk, policy.cost), abs=1e-12
    )
    assert policy.otherwise == "review"
    assert policy.fallback <= policy.accept


def test_a_policy_says_what_it_promises() -> None:
    """The guarantee is about all that is released."""
    guarantee = _get_policy(
        _choose(_draw(np.random.default_rng(0), 1000), target_risk=0.1)
    ).guarantee
    assert guarantee is not None
    assert (guarantee.target_risk, guarantee.delta, guarantee.n, guarantee.family) == (
        0.1,
        0.05,
        1000,
        1,
    )
    assert guarantee.method.startswith("Pareto testing")


@settings(max_examples=30)
@given(RECORDS, st.randoms(use_true_random=False))
def test_every_policy_of_the_grid_does_what_it_says(
    records: list[tuple[float, bool, float, bool]], random: Any
) -> None:
    """Released, wrong and asked of any policy, counted question by question."""
    staged = _make_staged(records)
    grid = PolicyGrid(staged.confidence, staged.correct)
    half = np.array_split(np.random.default_rng(0).permutation(len(staged.score)), 2)[0]
    proposing = staged.part(half)
    place = random.randrange(len(grid.proposing.released))
    accept, fallback, accept_fallback = grid.get_thresholds(place)
    policy = StagedPolicy(
        accept=accept,
        fallback=fallback,
        accept_fallback=accept_fallback,
        otherwise=COSTS.otherwise,
        coverage=0.0,
        asked=0.0,
        risk=None,
        cost=0.0,
        guarantee=None,
    )
    coverage, asked, risk, cost = _outcome(policy, proposing, COSTS)
    n = len(proposing.score)
    assert grid.proposing.released[place] == round(coverage * n)
    assert grid.proposing.asked[place] == round(asked * n)
    assert grid.proposing.compute_mean_costs(COSTS)[place] == pytest.approx(cost, abs=1e-12)
    assert coverage == 0 or grid.proposing.wrong[place] == round(risk * coverage * n)


def _true_risk(policy: StagedPolicy, population: Records) -> float:
    """The probability that a released answer is wrong, over the scores of a large population."""
    error = 1 / (1 + np.exp(population.score))
    answer, fallback = population.confidence.T
    first = answer >= policy.accept
    second = ~first & (answer >= policy.fallback) & (fallback >= policy.accept_fallback)
    released = int(first.sum() + second.sum())
    return float(error[first, 0].sum() + error[second, 1].sum()) / released if released else 0.0


def test_the_promise_holds_for_all_that_is_released() -> None:
    """200 draws of 400 records: the true risk of the policy exceeds the target in δ of them at most.

    Errors are free here, so nothing but the promise keeps the policy from releasing all.
    """
    chance = np.random.default_rng(3)
    population = _draw(np.random.default_rng(4), 10_000)
    costs = StagedCosts(wrong=0.0, abstain=1.0, fallback=0.1)
    exceeded = found = 0
    for _ in range(200):
        policy = _choose(_draw(chance, 400), target_risk=0.15, delta=0.2, costs=costs)
        if isinstance(policy, StagedPolicy):
            found += 1
            exceeded += _true_risk(policy, population) > 0.15
    assert found > 150
    assert 0 < exceeded / 200 <= 0.2 + 3 * math.sqrt(0.2 * 0.8 / 200)


def test_two_stages_cost_less_than_the_first_alone() -> None:
    """A fallback at a fair price lowers the cost. At a price above the reviewer's it is never asked."""
    staged = _draw(np.random.default_rng(1), 4000)
    fair = _get_policy(_choose(staged, target_risk=0.1))
    dear = _get_policy(
        _choose(staged, target_risk=0.1, costs=COSTS.model_copy(update={"fallback": 2.5}))
    )
    assert fair.asked > 0.2
    assert dear.asked == 0.0
    assert fair.cost < dear.cost < 2.0


def test_without_a_cheaper_reviewer_the_rest_is_abstained_from() -> None:
    """Review is what becomes of the rest only where it costs no more than abstaining."""
    assert StagedCosts(wrong=1, abstain=1, fallback=0).otherwise == "abstain"
    assert StagedCosts(wrong=1, abstain=1, fallback=0, review=2).otherwise == "abstain"
    assert StagedCosts(wrong=1, abstain=2, fallback=0, review=1).otherwise == "review"
    assert StagedCosts(wrong=1, abstain=2, fallback=0, review=1).otherwise_cost == 1


def test_where_every_answer_costs_more_than_a_review_none_is_released() -> None:
    """Keeping the risk is not enough: the cheapest policy releases nothing, and promises nothing."""
    costs = StagedCosts(wrong=100.0, abstain=1.0, fallback=0.1, review=0.01)
    policy = _get_policy(
        _choose(_draw(np.random.default_rng(2), 1000), target_risk=0.2, costs=costs)
    )
    assert (policy.coverage, policy.risk, policy.cost, policy.guarantee) == (0.0, None, 0.01, None)
    assert policy.after_answer(math.nextafter(1.0, 0.0)) == "review"


def test_a_risk_that_no_policy_keeps_is_said_to_be_out_of_reach() -> None:
    """With 100 records a risk of 0.01 can't be promised, but a larger risk could have been."""
    staged = _draw(np.random.default_rng(0), 100)
    missing = _choose(staged, target_risk=0.01)
    assert isinstance(missing, UnmetTarget)
    assert 0.01 < missing.best_risk < 0.5
    assert missing.best_coverage > 0
    assert isinstance(_choose(staged, target_risk=missing.best_risk), StagedPolicy)


@pytest.mark.parametrize("asked", [{"target_risk": 0.0}, {"target_risk": 0.1, "delta": 1.0}])
def test_a_target_outside_its_range_is_a_mistake(asked: dict[str, float]) -> None:
    """Target and δ are shares."""
    with pytest.raises(InputError, match="a target risk and a δ between 0 and 1, found"):
        _choose(_draw(np.random.default_rng(0), 10), **asked)


@pytest.mark.parametrize(
    ("confidences", "correct", "found"),
    [
        (np.zeros((3, 1)), np.ones((3, 1), bool), r"shapes \(3, 1\) and \(3, 1\)"),
        (np.zeros((1, 2)), np.ones((1, 2), bool), r"shapes \(1, 2\)"),
        (np.full((3, 2), np.nan), np.ones((3, 2), bool), "one outside"),
        (np.full((3, 2), 1.5), np.ones((3, 2), bool), "one outside"),
    ],
)
def test_answers_of_other_shapes_are_a_mistake(
    confidences: Numbers, correct: NDArray[np.bool_], found: str
) -> None:
    """Two confidences a record, of two records or more."""
    with pytest.raises(InputError, match=f"two records or more, .* found {found}"):
        choose_staged_policy(confidences, correct, costs=COSTS, target_risk=0.1, date=TODAY)


def test_a_confidence_of_one_does_not_reach_a_threshold_of_one() -> None:
    """A threshold of 1 releases nothing, also where an evaluator is sure: a policy that releases has one below."""
    policy = choose_staged_policy(
        np.ones((200, 2)), np.ones((200, 2), bool), costs=COSTS, target_risk=0.1, date=TODAY
    )
    assert _get_policy(policy).accept < 1
    assert _get_policy(policy).coverage == 1.0
