"""The cuts that labelled answers offer, on the selection score and on the confidence at once.

Everything is tested on the selection score, whose order no label has touched; the chosen cut is then carried over to
the confidence, which the guard compares.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field

from aspire_guard.selection.arrays import Counts, Numbers
from aspire_guard.selection.calibration import Guarantee, Threshold
from aspire_guard.selection.risk_control.fixed_sequence import (
    METHOD,
    any_certified,
    certified_runs,
    rank_answers,
)

ThresholdObjective = Literal["risk", "coverage", "cost"]

_STEPS = 1000  # a risk that can be promised is looked for to a tenth of a percent
_LEAST_ADVICE = 0.1


class Calibrator(Protocol):
    """A calibrator: never gives a higher score a lower confidence."""

    def confidences(self, scores: ArrayLike) -> Numbers:
        """The confidences of selection scores `(n,)`, in [0, 1)."""


class NoThreshold(BaseModel):
    """No cut keeps the risk at or below the target with the confidence asked for.

    Attributes:
        name: the band that stays closed.
        group: the group without a threshold; None: no group was asked for.
        target_risk: what was asked for.
        delta: the probability with which the promise may fail, of this threshold and those asked for with it.
        best_risk: the least target risk, in steps of 0.001, for which these answers give a threshold; 1: none does.
        best_coverage: the share of these answers that it would release.
        more_needed: roughly how many more answers like these would do; None where no number would, as far as the
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
        """What was found instead of a threshold, in one sentence."""
        best = (
            f"the least that could have been promised is {100 * self.best_risk:.4g} %, "
            f"at a coverage of {100 * self.best_coverage:.3g} %"
            if self.best_coverage
            else "no share could have been promised"
        )
        more = (
            "more answers like these would not change that"
            if self.more_needed is None
            else f"about {self.more_needed:,} more labelled answers like these should do"
        )
        return (
            f"no threshold keeps wrong answers at {100 * self.target_risk:.4g} % of the released ones or fewer with "
            f"probability {100 * (1 - self.delta):.4g} %; {best}; {more}"
        )


@dataclass(frozen=True)
class RiskTarget:
    """What is asked of a cut: a risk of at most `target_risk`, which may fail with δ for the whole family together."""

    target_risk: float
    delta: float
    family: int = 1
    name: str = "accept"
    group: str | None = None

    @property
    def share(self) -> float:
        """The part of δ that is this promise's own."""
        return self.delta / self.family


class CandidateThresholds:
    """Labelled answers, ranked by score, and the ranks after which a threshold on the confidence can cut.

    Args:
        scores: selection scores, `(n,)`, finite.
        correct: whether each answer is right, `(n,)`.
        calibrator: from score to confidence.
        date: written into guarantees.

    Raises:
        InputError: empty, unequal lengths, or a score that is not finite.
    """

    def __init__(
        self, scores: ArrayLike, correct: ArrayLike, calibrator: Calibrator, date: str
    ) -> None:
        self.ranked, self.date = rank_answers(scores, correct), date
        self.n = len(self.ranked.score)
        self.confidence = calibrator.confidences(self.ranked.score)
        # Two scores can share a confidence: on a flat line, or within a float's last digit.
        parted = np.append(self.confidence[:-1] > self.confidence[1:], True)
        self.usable: Counts = np.flatnonzero(parted & self.ranked.is_cut) + 1

    def certified(self, promise: RiskTarget) -> Counts:
        """The usable ranks that keep the promise, rising."""
        runs = certified_runs(self.ranked, promise.target_risk, promise.share)
        kept = np.zeros(len(self.usable), dtype=bool)
        for run in runs:
            kept |= (self.usable >= run.first) & (self.usable <= run.last)
        return self.usable[kept]

    def promised(self, rank: int, promise: RiskTarget) -> Threshold:
        """The threshold after a certified rank."""
        return self.at(
            rank, "risk", promise.target_risk, name=promise.name, group=promise.group
        ).model_copy(
            update={"risk_bound": promise.target_risk, "guarantee": self.guarantee(promise, METHOD)}
        )

    def guarantee(self, promise: RiskTarget, method: str) -> Guarantee:
        """The promise, as it is saved."""
        return Guarantee(
            target_risk=promise.target_risk,
            delta=promise.delta,
            n=self.n,
            family=promise.family,
            method=method,
            date=self.date,
        )

    def at(
        self,
        rank: int,
        objective: ThresholdObjective,
        target: float,
        *,
        name: str = "accept",
        group: str | None = None,
    ) -> Threshold:
        """The threshold after a usable rank, without a promise; after rank 0 nothing is released."""
        confidence, score = self._place(rank)
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

    def nothing(self, promise: RiskTarget) -> NoThreshold:
        """What could have been promised in place of a promise that no cut keeps."""
        best = least_promised(
            promise.target_risk,
            lambda risk: any_certified(self.ranked, self.usable, risk, promise.share),
        )
        rank = np.arange(1, self.n + 1)
        return NoThreshold(
            name=promise.name,
            group=promise.group,
            target_risk=promise.target_risk,
            delta=promise.delta,
            best_risk=best,
            best_coverage=self.certified(RiskTarget(best, promise.share))[-1] / self.n
            if best < 1
            else 0.0,
            # As often wrong as the confidences say: the observed errors are few by luck at some cut.
            more_needed=more_needed(
                np.cumsum(1 - self.confidence) / rank,
                rank,
                self.n,
                promise.target_risk,
                promise.share,
            ),
        )

    def _place(self, rank: int) -> tuple[float, float | None]:
        """The least confidence and the least score that are released: anything above the first answer left out."""
        if rank == 0:
            return 1.0, None
        if rank == self.n:
            return 0.0, -sys.float_info.max
        return (
            math.nextafter(float(self.confidence[rank]), 1.0),
            math.nextafter(float(self.ranked.score[rank]), math.inf),
        )


def least_promised(target_risk: float, found: Callable[[float], bool]) -> float:
    """A risk above the target, in steps of 0.001, for which something is `found`, and nothing a step below; 1: nothing.

    By bisection. The tests start elsewhere for every risk, so that now and then one passes for a lower risk yet.
    """
    low, high = math.floor(target_risk * _STEPS), _STEPS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle / _STEPS) else (middle, high)
    return high / _STEPS


def more_needed(
    risk: Numbers, released: Numbers | Counts, n: int, target_risk: float, delta: float
) -> int | None:
    """Roughly how many answers are missing, where of n answers a cut releases so many with such a risk, `(cuts,)`.

    m released answers with a share r of wrong ones pass from about m·KL(r, target) = log(1 / δ) on: Chernoff's bound.
    None where every risk is above the target.
    """
    hopeful = (risk < target_risk) & (released > 0)
    if not hopeful.any():
        return None
    risk, share = np.maximum(risk[hopeful], 1e-12), released[hopeful] / n
    divergence = risk * np.log(risk / target_risk) + (1 - risk) * np.log(
        (1 - risk) / (1 - target_risk)
    )
    enough = float((math.log(1 / delta) / divergence / share).min())
    return _rounded(max(enough - n, _LEAST_ADVICE * n, 1.0))


def _rounded(count: float) -> int:
    """Up to two digits: more would pretend to know."""
    step = int(10 ** max(math.floor(math.log10(count)) - 1, 0))
    return math.ceil(count / step) * step
