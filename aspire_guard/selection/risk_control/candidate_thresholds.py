"""The candidate thresholds that labelled answers offer, on the selection score and on the confidence at once.

All tests are made on the selection score, whose order no label has touched. The chosen threshold is then carried over
to the confidence, which the guard compares.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field

from aspire_guard.selection.arrays import Counts, Numbers
from aspire_guard.selection.calibration import Guarantee, Objective, Threshold
from aspire_guard.selection.calibrators import Calibrator
from aspire_guard.selection.risk_control.fixed_sequence import (
    METHOD,
    find_certified_runs,
    has_certified_rank,
    rank_answers,
)

_STEPS = 1000  # the lowest risk that can be promised is searched to a tenth of a percent
_MIN_ADVICE = 0.1
_MIN_RISK = 1e-12


class UnmetTarget(BaseModel):
    """A target that no threshold meets: none keeps the risk at or below it with the probability asked for.

    Attributes:
        name: the band that stays closed.
        group: the group without a threshold, or None if no group was asked for.
        target_risk: the risk that was asked for.
        delta: the probability with which the promise may fail, of this threshold and those asked for with it.
        best_risk: the lowest target risk, in steps of 0.001, for which these answers give a threshold, or 1 if there is
            no such risk.
        best_coverage: the share of these answers that such a threshold would release.
        more_needed: roughly how many more answers like these would do, or None if no number would, as far as the
            confidences tell.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "accept"
    group: str | None = None
    target_risk: float = Field(gt=0, lt=1)
    delta: float = Field(gt=0, lt=1)
    best_risk: float = Field(gt=0, le=1)
    best_coverage: float = Field(ge=0, le=1)
    more_needed: int | None = Field(ge=1)

    @property
    def sentence(self) -> str:
        """The finding in one sentence: no threshold, the best promise there is, and the answers that are missing."""
        best = "no share could have been promised"
        if self.best_coverage:
            best = (
                f"the least that could have been promised is {100 * self.best_risk:.4g} %, "
                f"at a coverage of {100 * self.best_coverage:.3g} %"
            )
        more = "more answers like these would not change that"
        if self.more_needed is not None:
            more = f"about {self.more_needed:,} more labelled answers like these should do"
        return (
            f"no threshold keeps wrong answers at {100 * self.target_risk:.4g} % of the released ones or fewer with "
            f"probability {100 * (1 - self.delta):.4g} %; {best}; {more}"
        )


@dataclass(frozen=True)
class RiskTarget:
    """The demand on a threshold: a risk of at most `target_risk`.

    Attributes:
        target_risk: the largest share of wrong answers among the released ones, in (0, 1).
        delta: δ, the probability that the promises of the whole family fail, in (0, 1).
        family: the number of thresholds that share δ.
        name: the band that the threshold opens.
        group: the group that the threshold is for, or None if it is for all answers.
    """

    target_risk: float
    delta: float
    family: int = 1
    name: str = "accept"
    group: str | None = None

    @property
    def own_delta(self) -> float:
        """The part of δ that belongs to this target."""
        return self.delta / self.family


class CandidateThresholds:
    """Labelled answers, ranked by score, and the ranks after which a threshold on the confidence can lie.

    Args:
        scores: selection scores, `(n,)`, finite.
        correct: whether each answer is right, `(n,)`.
        calibrator: maps scores to confidences.
        date: written into guarantees.

    Attributes:
        ranked: the answers from the highest score down.
        confidence: the confidences of the ranked answers, `(n,)`, falling.
        ranks: the ranks after which a candidate threshold lies, rising. The last rank is n.

    Raises:
        InputError: empty, unequal lengths, or a score that is not finite.
    """

    def __init__(
        self, scores: ArrayLike, correct: ArrayLike, calibrator: Calibrator, date: str
    ) -> None:
        self.date = date
        self.ranked = rank_answers(scores, correct)
        self.n = len(self.ranked.score)
        self.confidence = calibrator.confidences(self.ranked.score)
        # Two scores can share a confidence: on a flat line, or within a float's last digit.
        is_above_next = np.append(self.confidence[:-1] > self.confidence[1:], True)
        self.ranks: Counts = np.flatnonzero(is_above_next & self.ranked.is_candidate) + 1

    def find_certified(self, target: RiskTarget) -> Counts:
        """Return the ranks whose candidate thresholds meet the target, rising."""
        runs = find_certified_runs(self.ranked, target.target_risk, target.own_delta)
        is_certified = np.zeros(len(self.ranks), dtype=bool)
        for run in runs:
            is_certified |= (self.ranks >= run.first) & (self.ranks <= run.last)
        return self.ranks[is_certified]

    def make_threshold(
        self,
        rank: int,
        objective: Objective,
        target: float,
        *,
        name: str = "accept",
        group: str | None = None,
    ) -> Threshold:
        """Return the threshold after one of the ranks, without a promise. After rank 0 nothing is released."""
        confidence, score = self._get_values_above_next(rank)
        return Threshold(
            name=name,
            group=group,
            confidence=confidence,
            selection_score=score,
            objective=objective,
            target=target,
            coverage=rank / self.n,
            risk=float(self.ranked.wrong[rank - 1] / rank) if rank else None,
        )

    def make_promised_threshold(self, rank: int, target: RiskTarget) -> Threshold:
        """Return the threshold after a certified rank, with its promise."""
        threshold = self.make_threshold(
            rank, "risk", target.target_risk, name=target.name, group=target.group
        )
        return self.add_promise(threshold, target, METHOD)

    def add_promise(self, threshold: Threshold, target: RiskTarget, method: str) -> Threshold:
        """Return the threshold with the target as its promise. `method` names the test behind it."""
        guarantee = Guarantee(
            target_risk=target.target_risk,
            delta=target.delta,
            n=self.n,
            family=target.family,
            method=method,
            date=self.date,
        )
        return threshold.model_copy(
            update={"risk_bound": target.target_risk, "guarantee": guarantee}
        )

    def explain_unmet(self, target: RiskTarget) -> UnmetTarget:
        """Explain what could have been promised in place of a target that no candidate meets."""
        best_risk = find_least_promisable_risk(
            target.target_risk,
            lambda risk: has_certified_rank(self.ranked, self.ranks, risk, target.own_delta),
        )
        best_coverage = 0.0
        if best_risk < 1:
            best_rank = self.find_certified(RiskTarget(best_risk, target.own_delta))[-1]
            best_coverage = best_rank / self.n
        released = np.arange(1, self.n + 1)
        # Answers are taken to be wrong as often as the confidences say, because at some candidate the observed errors
        # are few by luck.
        expected_risk = np.cumsum(1 - self.confidence) / released
        more_needed = estimate_answers_needed(
            expected_risk, released, self.n, target.target_risk, target.own_delta
        )
        return UnmetTarget(
            name=target.name,
            group=target.group,
            target_risk=target.target_risk,
            delta=target.delta,
            best_risk=best_risk,
            best_coverage=best_coverage,
            more_needed=more_needed,
        )

    def _get_values_above_next(self, rank: int) -> tuple[float, float | None]:
        """Return the lowest confidence and the lowest score that are released, just above the first answer left out."""
        if rank == 0:
            return 1.0, None
        if rank == self.n:
            return 0.0, -sys.float_info.max
        return (
            math.nextafter(float(self.confidence[rank]), 1.0),
            math.nextafter(float(self.ranked.score[rank]), math.inf),
        )


def find_least_promisable_risk(target_risk: float, is_met: Callable[[float], bool]) -> float:
    """Find a risk above the target that is met while the risk a step of 0.001 below is not, or 1 if there is none.

    The search is a bisection. The tests start elsewhere for every risk, so now and then an even lower risk would pass.

    Args:
        target_risk: a risk that is not met.
        is_met: tells whether a risk can be promised.
    """
    low, high = math.floor(target_risk * _STEPS), _STEPS
    while high - low > 1:
        middle = (low + high) // 2
        if is_met(middle / _STEPS):
            high = middle
        else:
            low = middle
    return high / _STEPS


def estimate_answers_needed(
    risk: Numbers, released: Numbers | Counts, n: int, target_risk: float, delta: float
) -> int | None:
    """Estimate how many answers are missing until one of the candidates meets the target.

    m released answers with a share r of wrong ones pass from about m·KL(r, target) = log(1 / δ) on: Chernoff's bound.

    Args:
        risk: the risk of each candidate, `(k,)`.
        released: how many of the n answers each candidate releases, `(k,)`.
        n: the number of answers there are.
        target_risk: in (0, 1).
        delta: δ, in (0, 1).

    Returns:
        The number of further answers, to two digits, or None if every risk is above the target.
    """
    is_hopeful = (risk < target_risk) & (released > 0)
    if not is_hopeful.any():
        return None
    risk = np.maximum(risk[is_hopeful], _MIN_RISK)
    coverage = released[is_hopeful] / n
    wrong_part = risk * np.log(risk / target_risk)
    right_part = (1 - risk) * np.log((1 - risk) / (1 - target_risk))
    divergence = wrong_part + right_part
    enough = float((math.log(1 / delta) / divergence / coverage).min())
    return _round_up(max(enough - n, _MIN_ADVICE * n, 1.0))


def _round_up(count: float) -> int:
    """Round up to two digits. More digits would suggest a precision that the estimate does not have."""
    step = int(10 ** max(math.floor(math.log10(count)) - 1, 0))
    return math.ceil(count / step) * step
