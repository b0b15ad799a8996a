"""Two stages together: release the answer, try the fallback, ask a reviewer or abstain, at the lowest cost.

The promise is about everything that is released, by both stages together. One half of the records proposes policies:
of every combination of thresholds from a grid it keeps those that no other combination beats in both risk and cost,
from the safest to the cheapest ("Pareto testing", Laufer-Goldshtein et al. 2023). The other half tests them in this
order by the exact binomial p-value, each at the whole of δ, until one fails (fixed sequence). For that half the
policies are fixed beforehand. So, with probability 1 − δ, no policy that passes exceeds the target.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field

from aspire_guard.errors import InputError
from aspire_guard.selection.arrays import Labels, Numbers
from aspire_guard.selection.calibration import Guarantee
from aspire_guard.selection.calibrators import HIGHEST_CONFIDENCE
from aspire_guard.selection.risk_control.candidate_thresholds import (
    UnmetTarget,
    estimate_answers_needed,
    find_least_promisable_risk,
)
from aspire_guard.selection.risk_control.policy_grid import PolicyGrid, StagedCosts
from aspire_guard.selection.staged_answers import STAGES

METHOD = "Pareto testing: half of the records proposes, exact binomial tests in fixed sequence on the other half"


class StagedPolicy(BaseModel):
    """The cheapest policy found that keeps its promise.

    Attributes:
        accept: the lowest confidence of an answer that is released, in [0, 1]. A threshold of 1 releases no answer.
        fallback: the lowest confidence of an answer below `accept` for which the fallback is asked.
        accept_fallback: the lowest confidence of the fallback's answer that is released, as for `accept`.
        otherwise: the route of all other questions.
        coverage: the share of questions that are answered. This and all other figures are of the testing half.
        asked: the share of questions for which the fallback is asked.
        risk: the share of wrong answers among the released ones, or None if nothing is released.
        cost: the mean cost of a question.
        guarantee: the promise, or None if nothing is released.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    accept: float = Field(ge=0, le=1)
    fallback: float = Field(ge=0, le=1)
    accept_fallback: float = Field(ge=0, le=1)
    otherwise: Literal["review", "abstain"]
    coverage: float
    asked: float
    risk: float | None
    cost: float
    guarantee: Guarantee | None

    def after_answer(self, confidence: float) -> Literal["accept", "fallback", "review", "abstain"]:
        """Tell what to do with an answer of this confidence."""
        if confidence >= self.accept:
            return "accept"
        return "fallback" if confidence >= self.fallback else self.otherwise

    def after_fallback(self, confidence: float) -> Literal["accept", "review", "abstain"]:
        """Tell what to do with an answer of the fallback of this confidence."""
        return "accept" if confidence >= self.accept_fallback else self.otherwise


def choose_staged_policy(
    confidences: ArrayLike,
    correct: ArrayLike,
    *,
    costs: StagedCosts,
    target_risk: float,
    date: str,
    delta: float = 0.05,
) -> StagedPolicy | UnmetTarget:
    """Choose the cheapest policy that keeps the share of wrong answers among all released ones at the target or below.

    The promise holds with probability 1 − δ over the draw of the records.

    Args:
        confidences: the confidences of both stages' answers, `(n, 2)`, in [0, 1]. They must come from the evaluator
            that the guard will use, because the guard compares them with the thresholds. The evaluator's calibrator
            may have been fitted on these very records, since a rising calibrator changes no answer's place.
        correct: whether each of these answers is right, `(n, 2)`.
        costs: the costs of the outcomes.
        target_risk: the largest share of wrong answers among all released ones, in (0, 1).
        date: written into the guarantee.
        delta: δ, in (0, 1).

    Raises:
        InputError: fewer than two records, other shapes, confidences outside [0, 1], or a target or δ outside (0, 1).
    """
    confidence, right = _check_answers(confidences, correct)
    if not 0 < target_risk < 1 or not 0 < delta < 1:
        raise InputError(
            "staged policy: expected a target risk and a δ between 0 and 1, found "
            f"{target_risk:g} and {delta:g}; pass shares, e.g. 0.05"
        )
    grid = PolicyGrid(confidence, right)
    certified = grid.find_certified(costs, target_risk, delta)
    if not len(certified):
        return _explain_unmet(grid, costs, target_risk, delta)
    proposed_cost = grid.proposing.compute_mean_costs(costs)[certified]
    if proposed_cost.min() >= costs.otherwise_cost:
        return _release_nothing(costs)
    best = int(certified[proposed_cost.argmin()])
    guarantee = Guarantee(
        target_risk=target_risk, delta=delta, n=len(right), method=METHOD, date=date
    )
    return _describe_policy(grid, best, costs, guarantee)


def _check_answers(confidences: ArrayLike, correct: ArrayLike) -> tuple[Numbers, Labels]:
    confidence = np.asarray(confidences, dtype=np.float64)
    right = np.asarray(correct, dtype=np.bool_)
    n = len(right)
    is_paired = confidence.shape == right.shape == (n, len(STAGES))
    if not is_paired or n < 2 or not ((confidence >= 0) & (confidence <= 1)).all():
        found = f"shapes {confidence.shape} and {right.shape}"
        if is_paired and n >= 2:
            found = "one outside"
        raise InputError(
            "staged policy: expected confidences in [0, 1] and labels of two records or more, (n, 2) each, "
            f"found {found}; fix them"
        )
    # A threshold of 1 releases nothing, so a confidence of 1 must not reach it.
    return np.minimum(confidence, HIGHEST_CONFIDENCE), right


def _describe_policy(
    grid: PolicyGrid, place: int, costs: StagedCosts, guarantee: Guarantee
) -> StagedPolicy:
    accept, fallback, accept_fallback = grid.get_thresholds(place)
    tested = grid.testing
    return StagedPolicy(
        accept=accept,
        fallback=fallback,
        accept_fallback=accept_fallback,
        otherwise=costs.otherwise,
        coverage=float(tested.released[place] / tested.n),
        asked=float(tested.asked[place] / tested.n),
        risk=float(tested.wrong[place] / tested.released[place]),
        cost=float(tested.compute_mean_costs(costs)[place]),
        guarantee=guarantee,
    )


def _release_nothing(costs: StagedCosts) -> StagedPolicy:
    return StagedPolicy(
        accept=1.0,
        fallback=1.0,
        accept_fallback=1.0,
        otherwise=costs.otherwise,
        coverage=0.0,
        asked=0.0,
        risk=None,
        cost=costs.otherwise_cost,
        guarantee=None,
    )


def _explain_unmet(
    grid: PolicyGrid, costs: StagedCosts, target_risk: float, delta: float
) -> UnmetTarget:
    """Explain what could have been promised instead."""
    best_risk = find_least_promisable_risk(
        target_risk, lambda risk: len(grid.find_certified(costs, risk, delta)) > 0
    )
    best_coverage = 0.0
    if best_risk < 1:
        certified = grid.find_certified(costs, best_risk, delta)
        best_coverage = float((grid.testing.released[certified] / grid.testing.n).max())
    released = grid.proposing.released + grid.testing.released
    wrong = grid.proposing.wrong + grid.testing.wrong
    # Laplace's rule, against policies that were right a few times by luck.
    risk = (wrong + 1) / (released + 2)
    n = grid.proposing.n + grid.testing.n
    return UnmetTarget(
        target_risk=target_risk,
        delta=delta,
        best_risk=best_risk,
        best_coverage=best_coverage,
        more_needed=estimate_answers_needed(risk, released / 2, n, target_risk, delta),
    )
