"""The bands of a policy with the numbers that hold for one evaluator and one group."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from aspire_guard.errors import PolicyError
from aspire_guard.evaluators.protocol import Evaluator, NamedThreshold, has_grouped_thresholds
from aspire_guard.routing.routes import Accept, Routes
from aspire_guard.verdict import Score


@dataclass(frozen=True)
class ResolvedBand:
    """A band that begins at a known confidence.

    Attributes:
        threshold: the lowest confidence of the band, in [0, 1].
        guarantee: the evaluator's promise for answers from that confidence on, or None if it makes no promise.
        routes: the routes to try, in this order.
    """

    threshold: float
    guarantee: str | None
    routes: Routes

    @property
    def is_accepting(self) -> bool:
        """True if the score alone releases an answer of this band."""
        return isinstance(self.routes[0], Accept)


@dataclass(frozen=True)
class ResolvedBands:
    """All bands of a policy, from the highest confidence to the lowest.

    Attributes:
        bands: the bands.
        declined: the routes of an answer that declines to answer, or None if its band has the routes.
        distrusts_out_of_domain: True if an answer outside the domain of the calibration is in the lowest band.
    """

    bands: tuple[ResolvedBand, ...]
    declined: Routes | None = None
    distrusts_out_of_domain: bool = True

    def find_band(self, confidence: float) -> ResolvedBand:
        """Return the band of a confidence."""
        return next(band for band in self.bands if confidence >= band.threshold)

    def accepts(self, score: Score | None, accept_from: float | None = None) -> bool:
        """Tell whether the score alone releases an answer: by its band, or from `accept_from` on."""
        if score is None:
            return False
        if self.declined is not None and score.is_refusal:
            return isinstance(self.declined[0], Accept)
        if self._distrusts(score):
            return False
        if accept_from is not None:
            return score.confidence >= accept_from
        return self.find_band(score.confidence).is_accepting

    def find_routes(self, score: Score | None) -> Routes:
        """Return the routes to try for an answer, in this order.

        An answer without a score, or one that is out of domain and distrusted, is in the lowest band.
        """
        if score is not None:
            if self.declined is not None and score.is_refusal:
                return self.declined
            if not self._distrusts(score):
                return self.find_band(score.confidence).routes
        # An answer without a score, or with a score that means nothing, must never be accepted.
        lowest = self.bands[-1]
        return tuple(route for route in lowest.routes if not isinstance(route, Accept))

    @cached_property
    def lowest_accepting(self) -> ResolvedBand | None:
        """The lowest band that accepts, or None if no band accepts."""
        accepting = [band for band in self.bands if band.is_accepting]
        return accepting[-1] if accepting else None

    @property
    def threshold(self) -> float:
        """The lowest confidence that is released, in [0, 1], or 1 if no band accepts."""
        return self.lowest_accepting.threshold if self.lowest_accepting else 1.0

    def explain(self, score: Score | None, accept_from: float | None = None) -> str:
        """Compare a score with the threshold, or with `accept_from` if it is given, in one sentence."""
        if score is None:
            return "scoring failed, so the answer is not released"
        if self.declined is not None and score.is_refusal:
            return "the answer declines to answer, for which the policy has routes of its own"
        if self._distrusts(score):
            return "the answer is unlike those that the confidence was calibrated on"
        threshold = self.threshold if accept_from is None else accept_from
        comparison = "reaches" if score.confidence >= threshold else "is below"
        refusal = "; the answer declines to answer" if score.is_refusal else ""
        return (
            f"confidence {score.confidence:.3f} {comparison} the threshold {threshold:.3f}{refusal}"
        )

    def find_guarantee(self, score: Score | None) -> str | None:
        """Return the promise about answers that the threshold releases, or None if it does not cover this one."""
        if self.lowest_accepting is None:
            return None
        if score is not None:
            has_own_routes = self.declined is not None and score.is_refusal
            if has_own_routes or score.out_of_domain:
                return None
        return self.lowest_accepting.guarantee

    def _distrusts(self, score: Score) -> bool:
        return self.distrusts_out_of_domain and score.out_of_domain


def resolve_threshold(
    at_least: float | str,
    evaluator: Evaluator,
    *,
    group: str | None,
    policy_threshold: float | None,
) -> NamedThreshold:
    """Return the confidence that a band begins at, and the evaluator's promise for it.

    Args:
        at_least: the beginning of the band in the policy: a number, or the name of a threshold.
        evaluator: the evaluator that defines the named thresholds.
        group: the group of the answer, or None if it belongs to no group.
        policy_threshold: the number that the policy itself gives to "accept", if it does.

    Raises:
        PolicyError: the evaluator has no threshold of that name.
    """
    if at_least == "accept" and policy_threshold is not None:
        at_least = policy_threshold
    if isinstance(at_least, str):
        return _find_threshold(evaluator, group, at_least)
    # The promise was made for the evaluator's own threshold and holds for no other.
    accept = _find_threshold(evaluator, group, "accept")
    guarantee = accept.guarantee if at_least == accept.confidence else None
    return NamedThreshold(at_least, guarantee)


def _find_threshold(evaluator: Evaluator, group: str | None, name: str) -> NamedThreshold:
    """Return the evaluator's threshold of this name for a group."""
    if has_grouped_thresholds(evaluator) and (group is not None or name != "accept"):
        threshold = evaluator.threshold_for(group, name)
        if threshold is not None:
            return threshold
    if name == "accept":
        return NamedThreshold(evaluator.threshold, evaluator.guarantee)
    raise PolicyError(
        f"expected a threshold named {name!r} in the evaluator's calibration, found none; calibrate the evaluator with "
        f"such a band, or put a number in the policy's at_least"
    )
