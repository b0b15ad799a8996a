"""Policies of two stages on a grid of thresholds, their outcomes on two halves of the records, and the tests."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from aspire_guard.selection.arrays import Counts, Labels, Numbers
from aspire_guard.selection.risk_control.fixed_sequence import binomial_p_value
from aspire_guard.selection.risk_control.thresholds import Costs
from aspire_guard.selection.staged_answers import STAGES

_GRID = 24
_SPLIT_SEED = 0


class StagedCosts(Costs):
    """The cost of each outcome, in any one unit. A right answer costs nothing.

    Attributes:
        wrong: a wrong answer that is released.
        abstain: a question that is left unanswered.
        fallback: asking the fallback.
        review: asking a reviewer, whose answer is taken to be right, or None if there is no reviewer.
    """

    fallback: float = Field(ge=0, allow_inf_nan=False)
    review: float | None = Field(default=None, ge=0, allow_inf_nan=False)

    @property
    def otherwise(self) -> Literal["review", "abstain"]:
        """The cheaper of review and abstention, for a question without a released answer."""
        return "review" if self.review is not None and self.review <= self.abstain else "abstain"

    @property
    def otherwise_cost(self) -> float:
        """The cost of a question without a released answer."""
        return self.abstain if self.review is None else min(self.review, self.abstain)


class Outcomes(NamedTuple):
    """The outcomes of each policy of the grid on one half of the records, `(policies,)` each."""

    n: int
    released: Counts
    wrong: Counts
    asked: Counts

    def compute_mean_costs(self, costs: StagedCosts) -> Numbers:
        """Return the mean cost of a question under each policy, `(policies,)`."""
        unanswered = self.n - self.released
        total: Numbers = (
            costs.wrong * self.wrong
            + costs.fallback * self.asked
            + costs.otherwise_cost * unanswered
        )
        return total / self.n


class PolicyGrid:
    """All policies with thresholds at quantiles of the proposing half, and their outcomes on both halves.

    Args:
        confidence: of the answers of both stages, `(n, 2)`, in [0, 1).
        correct: whether each of them is right, `(n, 2)`.

    Attributes:
        proposing: the outcomes on the half of the records that proposes policies.
        testing: the outcomes on the half that tests them.
    """

    def __init__(self, confidence: Numbers, correct: Labels) -> None:
        order = np.random.default_rng(_SPLIT_SEED).permutation(len(correct))
        proposing, testing = np.array_split(order, 2)
        # One array per stage, `(k,)` each, falling.
        self._thresholds = [
            _choose_grid(confidence[proposing, column]) for column in range(len(STAGES))
        ]
        self._places = self._combine_places()
        self.proposing = self._count_outcomes(confidence[proposing], correct[proposing])
        self.testing = self._count_outcomes(confidence[testing], correct[testing])

    def find_certified(self, costs: StagedCosts, target_risk: float, delta: float) -> Counts:
        """Return the places of the policies that pass, from the safest to the cheapest."""
        front = self._find_pareto_front(costs, target_risk)
        p_value = binomial_p_value(
            self.testing.wrong[front], self.testing.released[front], target_risk
        )
        has_failed = np.append(p_value > delta, True)
        passed: Counts = front[: int(np.argmax(has_failed))]
        return passed

    def get_thresholds(self, policy: int) -> tuple[float, float, float]:
        """Return the least confidences that accept the answer, ask the fallback, and accept the fallback's answer."""
        accept, fallback, accept_fallback = (int(places[policy]) for places in self._places)
        answer_thresholds, fallback_thresholds = self._thresholds
        return (
            float(answer_thresholds[accept]),
            float(answer_thresholds[fallback]),
            float(fallback_thresholds[accept_fallback]),
        )

    def _combine_places(self) -> tuple[Counts, Counts, Counts]:
        """Return the places of each policy's thresholds: accept, fallback, accept_fallback, `(policies,)` each."""
        answer_places, fallback_places = (np.arange(len(each)) for each in self._thresholds)
        axes = np.meshgrid(answer_places, answer_places, fallback_places, indexing="ij")
        accept, fallback, accept_fallback = (axis.ravel() for axis in axes)
        # Thresholds fall with their places: the fallback is asked below the answers that are accepted.
        is_policy = fallback >= accept
        return accept[is_policy], fallback[is_policy], accept_fallback[is_policy]

    def _find_pareto_front(self, costs: StagedCosts, target_risk: float) -> Counts:
        """Return the policies that no other beats in both risk and cost on the proposing half, the safest first."""
        p_value = binomial_p_value(self.proposing.wrong, self.proposing.released, target_risk)
        cost = self.proposing.compute_mean_costs(costs)
        order = np.lexsort((cost, p_value))
        least_so_far = np.minimum.accumulate(cost[order])
        is_cheaper = np.append(True, least_so_far[1:] < least_so_far[:-1])
        releases = self.proposing.released[order] > 0
        front: Counts = order[is_cheaper & releases]
        return front

    def _count_outcomes(self, confidence: Numbers, correct: Labels) -> Outcomes:
        """Count the outcomes of every policy at once, from tables of how many answers reach which thresholds."""
        n_answer, n_fallback = (len(thresholds) for thresholds in self._thresholds)
        # The place of the first of the falling thresholds that each confidence reaches, `(n,)` per stage.
        first_reached = [
            np.searchsorted(-thresholds, -confidence[:, column])
            for column, thresholds in enumerate(self._thresholds)
        ]
        cell = np.ravel_multi_index((first_reached[0], first_reached[1]), (n_answer, n_fallback))

        def count_reaching(weights: NDArray[Any]) -> Counts:
            """Count the questions that reach threshold i with the answer and j with the fallback's, `(i, j)`."""
            counts = np.bincount(cell, weights=weights, minlength=n_answer * n_fallback)
            table = counts.reshape(n_answer, n_fallback)
            reached: Counts = np.rint(table.cumsum(0).cumsum(1)).astype(np.int64)
            return reached

        reaching = count_reaching(np.ones(len(correct)))
        answer_wrong = count_reaching(~correct[:, 0])
        fallback_wrong = count_reaching(~correct[:, 1])
        accept, fallback, accept_fallback = self._places
        # Every fallback's answer reaches the last threshold, 0.
        answers = reaching[:, -1]
        released_by_fallback = (
            reaching[fallback, accept_fallback] - reaching[accept, accept_fallback]
        )
        wrong_by_fallback = (
            fallback_wrong[fallback, accept_fallback] - fallback_wrong[accept, accept_fallback]
        )
        return Outcomes(
            n=len(correct),
            released=answers[accept] + released_by_fallback,
            wrong=answer_wrong[accept, -1] + wrong_by_fallback,
            asked=answers[fallback] - answers[accept],
        )


def _choose_grid(confidence: Numbers) -> Numbers:
    """Return 1, which no confidence reaches, quantiles, and 0, which every confidence reaches."""
    quantiles = np.quantile(confidence, np.arange(1, _GRID) / _GRID, method="inverted_cdf")
    return np.unique([0.0, *quantiles, 1.0])[::-1]
