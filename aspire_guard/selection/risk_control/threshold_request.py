"""The demands on a calibration, and the thresholds that meet them."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from aspire_guard.errors import InputError
from aspire_guard.selection.calibration import Threshold
from aspire_guard.selection.calibrators import Calibrator
from aspire_guard.selection.risk_control.thresholds import (
    Costs,
    UnmetTarget,
    choose_bands,
    choose_group_thresholds,
    choose_threshold,
)
from aspire_guard.selection.scored_answers import ScoredAnswers

ACCEPT = "accept"


class ThresholdRequest(BaseModel):
    """A request: a target risk (for all answers, by group, or with bands or costs), a target coverage, or costs.

    Attributes:
        target_risk: the largest share of wrong answers among the released ones, in (0, 1).
        target_coverage: the share of answers to release, in (0, 1].
        cost: the cost of a wrong answer and of an abstention. If answers have a cost of their own, it takes the
            place of `cost.wrong`.
        bands: the target risks of further bands, by name. `target_risk` belongs to the band "accept".
        by_group: whether every group of answers has a threshold of its own.
        delta: δ, the probability that a promise fails, of all thresholds together, in (0, 1).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    target_risk: float | None = None
    target_coverage: float | None = None
    cost: Costs | None = None
    bands: Mapping[str, float] = {}
    by_group: bool = False
    delta: float = 0.05

    def choose_thresholds(
        self, scored: ScoredAnswers, calibrator: Calibrator, date: str
    ) -> list[Threshold | UnmetTarget]:
        """Choose the thresholds. An `UnmetTarget` takes the place of a threshold that can't be found.

        One answer to each question counts, since answers to one question depend on each other. The strictest band comes
        first, or the first group in the alphabet.

        Raises:
            InputError: the answers or the targets can't be used, or don't go together.
        """
        scored = scored.draw_one_per_question(within_groups=self.by_group)
        if self.bands:
            band_thresholds = choose_bands(
                scored.selection_score,
                scored.correct,
                self._sort_bands(),
                calibrator=calibrator,
                date=date,
                delta=self.delta,
            )
            return list(band_thresholds.values())
        if self.by_group:
            return self._choose_by_group(scored, calibrator, date)
        threshold = choose_threshold(
            scored.selection_score,
            scored.correct,
            calibrator=calibrator,
            date=date,
            target_risk=self.target_risk,
            target_coverage=self.target_coverage,
            cost=self.cost,
            wrong_costs=scored.cost if self.cost else None,
            delta=self.delta,
        )
        return [threshold]

    def _sort_bands(self) -> dict[str, float]:
        """Return all bands with their target risks, the strictest first."""
        if self.by_group or self.target_coverage is not None or self.cost is not None:
            raise InputError(
                "bands: expected bands alone or with a target risk, found another objective too; leave one out"
            )
        bands = dict(self.bands)
        if self.target_risk is not None:
            if ACCEPT in bands:
                raise InputError(
                    "bands: expected one risk for the band accept, found it and a target risk; drop one"
                )
            bands[ACCEPT] = self.target_risk
        return dict(sorted(bands.items(), key=lambda band: band[1]))

    def _choose_by_group(
        self, scored: ScoredAnswers, calibrator: Calibrator, date: str
    ) -> list[Threshold | UnmetTarget]:
        if self.target_risk is None or self.target_coverage is not None or self.cost is not None:
            raise InputError(
                "by group: expected a target risk alone, found none or another objective too; pass just a target risk"
            )
        if scored.group is None:
            raise InputError(
                f'{scored.source}: expected a "group" in every line, found none; add it, or drop by-group'
            )
        group_thresholds = choose_group_thresholds(
            scored.selection_score,
            scored.correct,
            scored.group,
            self.target_risk,
            calibrator=calibrator,
            date=date,
            delta=self.delta,
        )
        return list(group_thresholds.values())


def make_closed_threshold(unmet: UnmetTarget) -> Threshold:
    """Return a threshold that releases nothing, so that no other threshold is used in place of an unmet target."""
    return Threshold(
        name=unmet.name,
        group=unmet.group,
        confidence=1.0,
        objective="risk",
        target=unmet.target_risk,
        coverage=0.0,
    )
