"""Policies of two stages on a grid of cuts, what each does to two halves of the records, and which of them pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from aspire_guard.errors import InputError
from aspire_guard.selection.arrays import Counts, Labels, Numbers
from aspire_guard.selection.risk_control.candidate_thresholds import Calibrator
from aspire_guard.selection.risk_control.fixed_sequence import binomial_p_value
from aspire_guard.selection.risk_control.thresholds import Costs

STAGES = ("answer", "fallback")

_GRID = 24
_SPLIT_SEED = 0


class StagedCosts(Costs):
    """What each outcome costs, in any one unit; a right answer costs nothing.

    Attributes:
        wrong: a wrong answer that is released.
        abstain: a question that is left unanswered.
        fallback: asking the fallback.
        review: asking a reviewer, whose answer is taken to be right; None: there is none.
    """

    fallback: float = Field(ge=0, allow_inf_nan=False)
    review: float | None = Field(default=None, ge=0, allow_inf_nan=False)

    @property
    def otherwise(self) -> Literal["review", "abstain"]:
        """What becomes of a question without a released answer: at one price each, the cheaper is always better."""
        return "review" if self.review is not None and self.review <= self.abstain else "abstain"

    @property
    def otherwise_cost(self) -> float:
        """What that costs."""
        return self.abstain if self.review is None else min(self.review, self.abstain)


@dataclass(frozen=True, eq=False)
class StagedAnswers:
    """Questions with the answers of both stages, `(n, 2)` each: the columns are the answer and the fallback.

    Attributes:
        selection_score: finite, higher where the answer is more likely right.
        correct: whether each answer is right.

    Raises:
        InputError: other shapes, or a score that is not finite.
    """

    selection_score: Numbers
    correct: Labels

    def __post_init__(self) -> None:
        shapes = self.selection_score.shape, self.correct.shape
        if shapes != ((len(self), len(STAGES)),) * 2 or not np.isfinite(self.selection_score).all():
            found = (
                f"shapes {shapes[0]} and {shapes[1]}"
                if shapes[0] != shapes[1]
                else f"{shapes[0]}, or not finite"
            )
            raise InputError(
                f"staged answers: expected finite scores and labels, (n, 2) each, found {found}; fix them"
            )

    def __len__(self) -> int:
        return len(self.correct)


class Outcomes(NamedTuple):
    """What each policy of the grid does to one half of the records, `(policies,)` each."""

    n: int
    released: Counts
    wrong: Counts
    asked: Counts

    def costs(self, costs: StagedCosts) -> Numbers:
        """The mean cost of a question."""
        left = self.n - self.released
        total: Numbers = (
            costs.wrong * self.wrong + costs.fallback * self.asked + costs.otherwise_cost * left
        )
        return total / self.n


class PolicyGrid:
    """All policies with cuts at quantiles of the proposing half, and what each does to both halves."""

    def __init__(self, staged: StagedAnswers, calibrators: Mapping[str, Calibrator]) -> None:
        confidence = np.column_stack(
            [
                calibrators[stage].confidences(staged.selection_score[:, i])
                for i, stage in enumerate(STAGES)
            ]
        )
        order = np.random.default_rng(_SPLIT_SEED).permutation(len(staged))
        proposing, testing = np.array_split(order, 2)
        self._cuts = [_falling_cuts(confidence[proposing, stage]) for stage in range(len(STAGES))]
        accept, fallback, second = (
            axis.ravel()
            for axis in np.meshgrid(
                *(np.arange(len(self._cuts[stage])) for stage in (0, 0, 1)), indexing="ij"
            )
        )
        kept = fallback >= accept
        self._places = accept[kept], fallback[kept], second[kept]
        self.proposing = self._outcomes(confidence[proposing], staged.correct[proposing])
        self.testing = self._outcomes(confidence[testing], staged.correct[testing])

    def certified(self, costs: StagedCosts, target_risk: float, delta: float) -> Counts:
        """The policies that pass, from the safest to the cheapest."""
        front = self._front(costs, target_risk)
        p_value = binomial_p_value(
            self.testing.wrong[front], self.testing.released[front], target_risk
        )
        failed = np.append(p_value > delta, True)
        passed: Counts = front[: int(np.argmax(failed))]
        return passed

    def cuts_of(self, policy: int) -> tuple[float, float, float]:
        """The least confidences that accept the answer, ask the fallback, and accept its answer."""
        accept, fallback, second = (int(axis[policy]) for axis in self._places)
        return (
            float(self._cuts[0][accept]),
            float(self._cuts[0][fallback]),
            float(self._cuts[1][second]),
        )

    def _front(self, costs: StagedCosts, target_risk: float) -> Counts:
        """The policies that no other beats in both risk and cost on the proposing half, the safest first."""
        p_value = binomial_p_value(self.proposing.wrong, self.proposing.released, target_risk)
        cost = self.proposing.costs(costs)
        order = np.lexsort((cost, p_value))
        least = np.minimum.accumulate(cost[order])
        better = np.append(True, least[1:] < least[:-1])
        front: Counts = order[better & (self.proposing.released[order] > 0)]
        return front

    def _outcomes(self, confidence: Numbers, correct: Labels) -> Outcomes:
        # place[i]: of the falling cuts the first that this confidence reaches.
        place = [
            np.searchsorted(-cuts, -confidence[:, stage]) for stage, cuts in enumerate(self._cuts)
        ]
        shape = (len(self._cuts[0]), len(self._cuts[1]))
        cell = np.ravel_multi_index((place[0], place[1]), shape)

        def up_to(weights: NDArray[Any]) -> Counts:
            """How many answers reach the first cut i and the second cut j, `(i, j)`."""
            table = np.bincount(cell, weights=weights, minlength=shape[0] * shape[1]).reshape(shape)
            reached: Counts = np.rint(table.cumsum(0).cumsum(1)).astype(np.int64)
            return reached

        both, answer_wrong, fallback_wrong = map(
            up_to, (np.ones(len(correct)), ~correct[:, 0], ~correct[:, 1])
        )
        accept, fallback, second = self._places
        answered = both[:, -1]
        return Outcomes(
            n=len(correct),
            released=answered[accept] + both[fallback, second] - both[accept, second],
            wrong=answer_wrong[accept, -1]
            + fallback_wrong[fallback, second]
            - fallback_wrong[accept, second],
            asked=answered[fallback] - answered[accept],
        )


def _falling_cuts(confidence: Numbers) -> Numbers:
    """1, which no confidence reaches, quantiles, and 0, which all reach."""
    quantiles = np.quantile(confidence, np.arange(1, _GRID) / _GRID, method="inverted_cdf")
    return np.unique([0.0, *quantiles, 1.0])[::-1]
