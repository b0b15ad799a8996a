"""The confidence from which answers may be released: for a target risk, a target coverage or the lowest cost.

`fixed_sequence` holds the statistics. A promise about the risk holds with probability 1 − δ over the draw of the
labelled answers, for all thresholds that one call gives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field

from aspire_guard.errors import InputError
from aspire_guard.selection.arrays import Counts, Numbers
from aspire_guard.selection.calibration import Threshold
from aspire_guard.selection.calibrators import Calibrator
from aspire_guard.selection.metrics.answers import as_pair
from aspire_guard.selection.risk_control.candidate_thresholds import (
    CandidateThresholds,
    RiskTarget,
    UnmetTarget,
)
from aspire_guard.selection.risk_control.fixed_sequence import (
    METHOD,
    choose_bounded_rank,
    find_fewest_released,
)

__all__ = ["Costs", "UnmetTarget", "choose_bands", "choose_group_thresholds", "choose_threshold"]


_BOUND = "Clopper–Pearson bound at a rank fixed beforehand"


class Costs(BaseModel):
    """The cost of each outcome, in any one unit. A right answer costs nothing.

    Attributes:
        wrong: a wrong answer that is released.
        abstain: a question that is left unanswered.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    wrong: float = Field(ge=0, allow_inf_nan=False)
    abstain: float = Field(ge=0, allow_inf_nan=False)


def choose_threshold(
    scores: ArrayLike,
    correct: ArrayLike,
    *,
    calibrator: Calibrator,
    date: str,
    target_risk: float | None = None,
    target_coverage: float | None = None,
    cost: Costs | None = None,
    wrong_costs: ArrayLike | None = None,
    delta: float = 0.05,
) -> Threshold | UnmetTarget:
    """Choose the confidence from which answers may be released, for one objective.

    `target_risk`: release as many answers as possible, such that with probability 1 − δ at most this share of them is
    wrong. With `cost` too: take the lowest cost among the thresholds that promise that. `target_coverage`: release at
    least this share of these answers, with the risk bound that goes with it. `cost` alone: take the lowest mean cost on
    these answers, without a promise.

    Args:
        scores: selection scores, `(n,)`, finite.
        correct: whether each answer is right, `(n,)`.
        calibrator: carries the threshold over to the confidence.
        date: written into the guarantee.
        target_risk: the largest share of wrong answers among the released ones, in (0, 1).
        target_coverage: the share of answers to release, in (0, 1].
        cost: the cost of a wrong answer and of an abstention.
        wrong_costs: the cost of each answer if it is released and wrong, `(n,)`, in place of `cost.wrong`.
        delta: δ, the probability over the draw of these answers that the promise fails, in (0, 1).

    Raises:
        InputError: bad answers or targets, or another choice of objectives.
    """
    n_objectives = sum(asked is not None for asked in (target_risk, target_coverage, cost))
    if not n_objectives or (target_coverage is not None and n_objectives > 1):
        found = "a target coverage and another" if n_objectives else "none"
        raise InputError(
            f"objective: expected a target risk, a target coverage, costs, or a target risk with costs, found {found}; "
            "give one of these"
        )
    _check_share("delta", delta)
    candidates = CandidateThresholds(scores, correct, calibrator, date)
    if target_coverage is not None:
        return _choose_for_coverage(candidates, target_coverage, delta)
    target: RiskTarget | None = None
    ranks = candidates.ranks
    if target_risk is not None:
        target = RiskTarget(_check_share("target risk", target_risk), delta)
        ranks = candidates.find_certified(target)
        if not len(ranks):
            return candidates.explain_unmet(target)
    if cost is not None:
        mean_costs = _compute_mean_costs(candidates, scores, correct, cost, wrong_costs)
        return _choose_cheapest(candidates, ranks, target, mean_costs)
    assert target is not None
    return candidates.make_promised_threshold(int(ranks[-1]), target)


def choose_bands(
    scores: ArrayLike,
    correct: ArrayLike,
    bands: Mapping[str, float],
    *,
    calibrator: Calibrator,
    date: str,
    delta: float = 0.05,
) -> dict[str, Threshold | UnmetTarget]:
    """Choose a threshold for each band of a routing policy, all promises holding at once with probability 1 − δ.

    A band's target is for all answers at or above its threshold, those of stricter bands included. Each band takes an
    equal share of δ, and what a stricter band found is good enough for every other.

    Args:
        scores: selection scores, `(n,)`, finite.
        correct: whether each answer is right, `(n,)`.
        bands: the target risk of each band, in (0, 1), by name.
        calibrator: carries the thresholds over to the confidence.
        date: written into the guarantees.
        delta: δ of all bands together, in (0, 1).

    Raises:
        InputError: bad answers or targets, or no bands.
    """
    if not bands:
        raise InputError(
            "bands: expected one or more, found none; name one with its target risk, e.g. accept=0.05"
        )
    _check_share("delta", delta)
    targets = [
        RiskTarget(_check_share("target risk", target_risk), delta, len(bands), name)
        for name, target_risk in bands.items()
    ]
    candidates = CandidateThresholds(scores, correct, calibrator, date)
    chosen: dict[str, Threshold | UnmetTarget] = {}
    widest = 0
    for target in sorted(targets, key=lambda target: target.target_risk):
        widest = int(max(candidates.find_certified(target).max(initial=0), widest))
        chosen[target.name] = _promise_or_explain(candidates, widest, target)
    return {name: chosen[name] for name in bands}


def choose_group_thresholds(
    scores: ArrayLike,
    correct: ArrayLike,
    groups: ArrayLike,
    target_risk: float,
    *,
    calibrator: Calibrator,
    date: str,
    delta: float = 0.05,
) -> dict[str, Threshold | UnmetTarget]:
    """Choose a threshold for each group, by name, all promises holding at once with probability 1 − δ.

    Each group is judged on its own answers, with an equal share of δ. Groups too small for any threshold take no share.

    Args:
        scores: selection scores, `(n,)`, finite.
        correct: whether each answer is right, `(n,)`.
        groups: the group of each answer, `(n,)`.
        target_risk: the target risk of every group, in (0, 1).
        calibrator: carries the thresholds over to the confidence.
        date: written into the guarantees.
        delta: δ of all groups together, in (0, 1).

    Raises:
        InputError: bad answers or target, or another number of groups than of answers.
    """
    _check_share("delta", delta)
    _check_share("target risk", target_risk)
    score, right = as_pair(scores, correct)
    group = np.asarray(groups)
    if group.shape != score.shape:
        shapes = f"shapes {group.shape} and {score.shape}"
        raise InputError(
            f"groups: expected one per answer, found {shapes}; name the group of each answer"
        )
    names, member, sizes = np.unique(group, return_inverse=True, return_counts=True)
    sharing = _find_large_enough(sizes, target_risk, delta)
    # The rows of each group, in the order of `names`.
    rows_of_groups = np.split(np.argsort(member, kind="stable"), np.cumsum(sizes)[:-1])
    chosen: dict[str, Threshold | UnmetTarget] = {}
    for place, name in enumerate(names.tolist()):
        rows = rows_of_groups[place]
        candidates = CandidateThresholds(score[rows], right[rows], calibrator, date)
        target = RiskTarget(target_risk, delta, max(len(sharing), 1), group=str(name))
        widest = 0
        if place in sharing:
            widest = int(candidates.find_certified(target).max(initial=0))
        chosen[str(name)] = _promise_or_explain(candidates, widest, target)
    return chosen


def _promise_or_explain(
    candidates: CandidateThresholds, rank: int, target: RiskTarget
) -> Threshold | UnmetTarget:
    """Return the threshold after a certified rank, or, for rank 0, the reason why there is none."""
    if rank:
        return candidates.make_promised_threshold(rank, target)
    return candidates.explain_unmet(target)


def _choose_for_coverage(
    candidates: CandidateThresholds, target_coverage: float, delta: float
) -> Threshold:
    if not 0 < target_coverage <= 1:
        raise InputError(
            f"target coverage: expected a share above 0 and up to 1, found {target_coverage:g}; pass e.g. 0.8"
        )
    # Rounding first: 0.07 · 100 is 7.000000000000001 to a float.
    least = max(math.ceil(round(target_coverage * candidates.n, 6)), 1)
    rank, exact_bound = choose_bounded_rank(candidates.ranked, candidates.ranks, least, delta)
    bound = (
        math.ceil(1e4 * exact_bound) / 1e4
    )  # rounded up to a readable figure, which is still a bound
    threshold = candidates.make_threshold(rank, "coverage", target_coverage)
    if bound >= 1:
        return threshold
    return candidates.add_promise(threshold, RiskTarget(bound, delta), _BOUND)


def _choose_cheapest(
    candidates: CandidateThresholds, ranks: Counts, target: RiskTarget | None, mean_costs: Numbers
) -> Threshold:
    """Return the threshold of lowest mean cost after any of these ranks, or the one that releases nothing."""
    ranks = np.append(ranks, 0)
    is_cheapest = mean_costs[ranks] == mean_costs[ranks].min()
    # Among thresholds that cost the same, choose the one that releases most.
    cheapest = int(ranks[is_cheapest].max())
    threshold = candidates.make_threshold(cheapest, "cost", float(mean_costs[cheapest]))
    if target is None or not cheapest:
        return threshold
    return candidates.add_promise(threshold, target, METHOD)


def _compute_mean_costs(
    candidates: CandidateThresholds,
    scores: ArrayLike,
    correct: ArrayLike,
    cost: Costs,
    wrong_costs: ArrayLike | None,
) -> Numbers:
    """Return the mean cost of a question if the best m answers are released, `(n + 1,)`, valid after each candidate."""
    score, right = as_pair(scores, correct)
    if wrong_costs is None:
        cost_if_wrong = np.full(len(score), cost.wrong)
    else:
        cost_if_wrong = np.asarray(wrong_costs, dtype=np.float64)
    has_shape = cost_if_wrong.shape == score.shape
    if not has_shape or not (np.isfinite(cost_if_wrong) & (cost_if_wrong >= 0)).all():
        found = "one below 0 or not finite" if has_shape else f"shape {cost_if_wrong.shape}"
        raise InputError(
            f"wrong_costs: expected one per answer, 0 or more, found {found}; pair them with the scores"
        )
    cost_if_released = np.where(right, 0.0, cost_if_wrong)[np.argsort(-score)]
    released_cost = np.append(0.0, np.cumsum(cost_if_released))
    abstention_cost = cost.abstain * np.arange(candidates.n, -1, -1)
    total: Numbers = released_cost + abstention_cost
    return total / candidates.n


def _find_large_enough(sizes: Counts, target_risk: float, delta: float) -> set[int]:
    """Return the places of the groups that share δ: as many of the largest as can each find a threshold."""
    largest = np.argsort(-sizes, kind="stable")
    for family in range(len(sizes), 0, -1):
        if sizes[largest[family - 1]] >= find_fewest_released(0, target_risk, delta / family):
            return set(largest[:family].tolist())
    return set()


def _check_share(name: str, value: float) -> float:
    if not 0 < value < 1:
        raise InputError(
            f"{name}: expected a share between 0 and 1, found {value:g}; pass e.g. 0.05"
        )
    return value
