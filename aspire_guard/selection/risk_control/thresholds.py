"""From which confidence on answers may be released: for a target risk, a target coverage or the least cost.

`guarantee` holds the statistics. A promise about the risk holds with probability 1 − δ over the draw of the labelled
answers, for all thresholds that one call gives.
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
from aspire_guard.selection.metrics.answers import as_pair
from aspire_guard.selection.risk_control.candidate_thresholds import (
    Calibrator,
    CandidateThresholds,
    NoThreshold,
    RiskTarget,
)
from aspire_guard.selection.risk_control.fixed_sequence import METHOD, bounded_cut, fewest_released

__all__ = ["Costs", "NoThreshold", "choose_bands", "choose_group_thresholds", "choose_threshold"]


_BOUND = "Clopper–Pearson bound at a rank fixed beforehand"


class Costs(BaseModel):
    """What each outcome costs, in any one unit; a right answer costs nothing.

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
) -> Threshold | NoThreshold:
    """The confidence from which answers may be released, for one objective.

    `target_risk`: the most answers, such that with probability 1 − δ at most this share of them is wrong. With `cost`
    too: the least cost among the cuts that promise that. `target_coverage`: at least this share of these answers,
    with the risk bound that goes with it. `cost` alone: the least mean cost on these answers, without a promise.

    Args:
        scores: selection scores, `(n,)`, finite.
        correct: whether each answer is right, `(n,)`.
        calibrator: carries the cut over to the confidence.
        date: written into the guarantee.
        target_risk: in (0, 1).
        target_coverage: in (0, 1].
        cost: of a wrong answer and of an abstention.
        wrong_costs: of each answer if it is released and wrong, `(n,)`, in place of `cost.wrong`.
        delta: δ, the probability over the draw of these answers that the promise fails, in (0, 1).

    Raises:
        InputError: bad answers or targets, or another choice of objectives.
    """
    asked = (target_risk is not None, target_coverage is not None, cost is not None)
    if not any(asked) or (target_coverage is not None and sum(asked) > 1):
        found = "none" if not any(asked) else "a target coverage and another"
        raise InputError(
            f"objective: expected a target risk, a target coverage, costs, or a target risk with costs, found {found}; "
            "give one of these"
        )
    _share("delta", delta)
    cuts = CandidateThresholds(scores, correct, calibrator, date)
    if target_coverage is not None:
        return _for_coverage(cuts, target_coverage, delta)
    promise = None if target_risk is None else RiskTarget(_share("target risk", target_risk), delta)
    ranks = cuts.usable if promise is None else cuts.certified(promise)
    if promise is not None and not len(ranks):
        return cuts.nothing(promise)
    if cost is not None:
        return _cheapest(
            cuts, ranks, promise, _mean_costs(cuts, scores, correct, cost, wrong_costs)
        )
    assert promise is not None
    return cuts.promised(int(ranks[-1]), promise)


def choose_bands(
    scores: ArrayLike,
    correct: ArrayLike,
    bands: Mapping[str, float],
    *,
    calibrator: Calibrator,
    date: str,
    delta: float = 0.05,
) -> dict[str, Threshold | NoThreshold]:
    """A threshold for each band of a routing policy, all promises holding at once with probability 1 − δ.

    A band's target is for all answers at or above its threshold, those of stricter bands included. Each band takes an
    equal share of δ, and what a stricter band found is good enough for every other.

    Args:
        scores: selection scores, `(n,)`, finite.
        correct: whether each answer is right, `(n,)`.
        bands: target risk, in (0, 1), by name.
        calibrator: carries the cuts over to the confidence.
        date: written into the guarantees.
        delta: δ of all bands together, in (0, 1).

    Raises:
        InputError: bad answers or targets, or no bands.
    """
    if not bands:
        raise InputError(
            "bands: expected one or more, found none; name one with its target risk, e.g. accept=0.05"
        )
    _share("delta", delta)
    promises = [
        RiskTarget(_share("target risk", target), delta, len(bands), name)
        for name, target in bands.items()
    ]
    cuts = CandidateThresholds(scores, correct, calibrator, date)
    found: dict[str, Threshold | NoThreshold] = {}
    widest = 0
    for promise in sorted(promises, key=lambda promise: promise.target_risk):
        widest = int(max(cuts.certified(promise).max(initial=0), widest))
        found[promise.name] = cuts.promised(widest, promise) if widest else cuts.nothing(promise)
    return {name: found[name] for name in bands}


def choose_group_thresholds(
    scores: ArrayLike,
    correct: ArrayLike,
    groups: ArrayLike,
    target_risk: float,
    *,
    calibrator: Calibrator,
    date: str,
    delta: float = 0.05,
) -> dict[str, Threshold | NoThreshold]:
    """A threshold for each group, by name, all promises holding at once with probability 1 − δ.

    Each group is judged on its own answers, with an equal share of δ; groups too small for any threshold take none.

    Args:
        scores: selection scores, `(n,)`, finite.
        correct: whether each answer is right, `(n,)`.
        groups: the group of each answer, `(n,)`.
        target_risk: in (0, 1), of every group.
        calibrator: carries the cuts over to the confidence.
        date: written into the guarantees.
        delta: δ of all groups together, in (0, 1).

    Raises:
        InputError: bad answers or target, or another number of groups than of answers.
    """
    _share("delta", delta)
    _share("target risk", target_risk)
    score, right = as_pair(scores, correct)
    group = np.asarray(groups)
    if group.shape != score.shape:
        shapes = f"shapes {group.shape} and {score.shape}"
        raise InputError(
            f"groups: expected one an answer, found {shapes}; name the group of each answer"
        )
    names, member, sizes = np.unique(group, return_inverse=True, return_counts=True)
    family = _large_enough(sizes, target_risk, delta)
    rows = np.split(np.argsort(member, kind="stable"), np.cumsum(sizes)[:-1])
    found: dict[str, Threshold | NoThreshold] = {}
    for place, name in enumerate(names.tolist()):
        cuts = CandidateThresholds(score[rows[place]], right[rows[place]], calibrator, date)
        promise = RiskTarget(target_risk, delta, max(len(family), 1), group=str(name))
        widest = int(cuts.certified(promise).max(initial=0)) if place in family else 0
        found[str(name)] = cuts.promised(widest, promise) if widest else cuts.nothing(promise)
    return found


def _for_coverage(cuts: CandidateThresholds, target: float, delta: float) -> Threshold:
    if not 0 < target <= 1:
        raise InputError(
            f"target coverage: expected a share above 0 and up to 1, found {target:g}; pass e.g. 0.8"
        )
    # Rounding first: 0.07 · 100 is 7.000000000000001 to a float.
    least = max(math.ceil(round(target * cuts.n, 6)), 1)
    rank, bound = bounded_cut(cuts.ranked, cuts.usable, least, delta)
    bound = math.ceil(1e4 * bound) / 1e4  # up, to a figure that can be read; still a bound
    threshold = cuts.at(rank, "coverage", target)
    if bound >= 1:
        return threshold
    guarantee = cuts.guarantee(RiskTarget(bound, delta), _BOUND)
    return threshold.model_copy(update={"risk_bound": bound, "guarantee": guarantee})


def _cheapest(
    cuts: CandidateThresholds, ranks: Counts, promise: RiskTarget | None, costs: Numbers
) -> Threshold:
    """The threshold of least mean cost after any of these ranks, or the one that releases nothing."""
    ranks = np.append(ranks, 0)
    # Of equally cheap ones that which releases most; rank 0 comes last.
    cheapest = int(ranks[np.flatnonzero(costs[ranks] == costs[ranks].min())].max())
    threshold = cuts.at(cheapest, "cost", float(costs[cheapest]))
    if promise is None or not cheapest:
        return threshold
    return threshold.model_copy(
        update={"risk_bound": promise.target_risk, "guarantee": cuts.guarantee(promise, METHOD)}
    )


def _mean_costs(
    cuts: CandidateThresholds,
    scores: ArrayLike,
    correct: ArrayLike,
    cost: Costs,
    wrong_costs: ArrayLike | None,
) -> Numbers:
    """The mean cost of a question where the best m answers are released, `(n + 1,)`; right after every cut."""
    score, right = as_pair(scores, correct)
    each = (
        np.full(len(score), cost.wrong)
        if wrong_costs is None
        else np.asarray(wrong_costs, dtype=np.float64)
    )
    if each.shape != score.shape or not (np.isfinite(each) & (each >= 0)).all():
        found = f"shape {each.shape}" if each.shape != score.shape else "one below 0 or not finite"
        raise InputError(
            f"wrong_costs: expected one an answer, 0 or more, found {found}; pair them with the scores"
        )
    paid = np.where(right, 0.0, each)[np.argsort(-score)]
    total: Numbers = np.append(0.0, np.cumsum(paid)) + cost.abstain * np.arange(cuts.n, -1, -1)
    return total / cuts.n


def _large_enough(sizes: Counts, target_risk: float, delta: float) -> set[int]:
    """The places of the groups that share δ: as many of the largest as can each find a threshold with its share."""
    largest = np.argsort(-sizes, kind="stable")
    for family in range(len(sizes), 0, -1):
        if sizes[largest[family - 1]] >= fewest_released(0, target_risk, delta / family):
            return set(largest[:family].tolist())
    return set()


def _share(name: str, value: float) -> float:
    if not 0 < value < 1:
        raise InputError(
            f"{name}: expected a share between 0 and 1, found {value:g}; pass e.g. 0.05"
        )
    return value
