"""The bands of a policy with the numbers that hold for one evaluator and one group."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from aspire_guard.errors import PolicyError
from aspire_guard.evaluators.protocol import Evaluator, GroupedThresholds
from aspire_guard.routing.routes import Accept, Routes
from aspire_guard.verdict import Score


@dataclass(frozen=True)
class ResolvedBand:
    """One band.

    Attributes:
        confidence: the least confidence of the band, in [0, 1].
        routes: what is tried, in this order.
        guarantee: what the evaluator promises of answers from that confidence on; None: nothing.
    """

    confidence: float
    routes: Routes
    guarantee: str | None = None

    @classmethod
    def of(
        cls,
        at_least: float | str,
        routes: Routes,
        own: float | None,
        evaluator: Evaluator,
        group: str | None,
    ) -> ResolvedBand:
        """The band that begins at a number, at the policy's `own` threshold, or at one of the evaluator's."""
        if at_least == "accept" and own is not None:
            at_least = own
        name = at_least if isinstance(at_least, str) else "accept"
        confidence, guarantee = _threshold_of(evaluator, group, name)
        if isinstance(at_least, str):
            return cls(confidence, routes, guarantee)
        # The promise was made for the evaluator's own threshold and holds for no other.
        return cls(at_least, routes, guarantee if at_least == confidence else None)


@dataclass(frozen=True)
class ResolvedBands:
    """All bands, from the highest confidence to the lowest."""

    bands: tuple[ResolvedBand, ...]

    def band(self, confidence: float) -> ResolvedBand:
        """The band that a confidence falls into."""
        return next(band for band in self.bands if confidence >= band.confidence)

    def accepts(self, score: Score | None) -> bool:
        """Whether an answer is released by its score alone."""
        return score is not None and isinstance(self.band(score.confidence).routes[0], Accept)

    def routes(self, score: Score | None) -> Routes:
        """What is tried for an answer, in this order; one without a score belongs to the lowest band."""
        if score is not None:
            return self.band(score.confidence).routes
        # Nobody knows how good it is, so it must not be released as it is.
        return tuple(route for route in self.bands[-1].routes if not isinstance(route, Accept))

    @cached_property
    def least_accepted(self) -> ResolvedBand | None:
        """The lowest band that accepts; None where none does."""
        return next(
            (band for band in reversed(self.bands) if isinstance(band.routes[0], Accept)), None
        )

    @property
    def threshold(self) -> float:
        """The least confidence that is released, in [0, 1]; 1 where no band accepts."""
        return self.least_accepted.confidence if self.least_accepted else 1.0

    def reason(self, score: Score | None) -> str:
        """How a score compares, in a sentence."""
        if score is None:
            return "scoring failed, so the answer is not released"
        comparison = "reaches" if score.confidence >= self.threshold else "is below"
        return f"confidence {score.confidence:.3f} {comparison} the threshold {self.threshold:.3f}"


def _threshold_of(evaluator: Evaluator, group: str | None, name: str) -> tuple[float, str | None]:
    """The evaluator's threshold of a group and name, with what it promises."""
    if isinstance(evaluator, GroupedThresholds) and (group is not None or name != "accept"):
        found = evaluator.threshold_for(group, name)
        if found is not None:
            return found.confidence, found.guarantee
    if name == "accept":
        return evaluator.threshold, evaluator.guarantee
    raise PolicyError(
        f"expected a threshold named {name!r} in the evaluator's calibration, found none; calibrate the evaluator with "
        f"such a band, or put a number in the policy's at_least"
    )
