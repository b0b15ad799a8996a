"""The policy: what becomes of an answer, by its confidence."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from langchain_core.runnables import Runnable
from pydantic import BaseModel, ConfigDict, Field, model_validator

from aspire_guard.evaluators.protocol import Evaluator
from aspire_guard.routing.bands import ResolvedBand, ResolvedBands
from aspire_guard.routing.routes import (
    ABSTENTION,
    Abstain,
    Accept,
    Band,
    Budget,
    Fallback,
    HumanReview,
    Routes,
    Row,
    Timeouts,
    as_routes,
)

_ACCEPT: Routes = (Accept(),)
_Share = Annotated[float, Field(ge=0.0, le=1.0)]


class RoutingPolicy(BaseModel):
    """How the guard treats scored answers.

    In its simple form an answer is released from the threshold on, and any other takes `otherwise`. With `bands`
    each band of confidence has its own routes.

    Attributes:
        threshold: the least confidence that is released, in [0, 1]; None takes the evaluator's.
        abstention: what is said in place of an answer that is not released.
        on_error: what happens when scoring fails: the answer is routed as one of the lowest confidence but never
            released as it is, or the guard abstains at once, or raises.
        otherwise: the routes of what is not released, where there are no bands; None: abstention.
        bands: from the highest confidence to the lowest; the last one begins at 0.
        group_by: the key of the config's metadata that holds an answer's group: tenant, task.
        thresholds: the threshold of a group; a group without one has `threshold`, or else the evaluator's own.
        budget: what may be spent on fallbacks.
        timeouts: how long work may take.
        on_chain_error: what happens when the chain fails or takes too long: the guard raises, or tries the routes
            of the lowest confidence, and raises where none of these has an output.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    threshold: _Share | None = None
    abstention: str = ABSTENTION
    on_error: Literal["route", "abstain", "raise"] = "route"
    otherwise: Row | None = None
    bands: tuple[Band, ...] = ()
    group_by: str | None = None
    thresholds: Mapping[str, _Share] = {}
    budget: Budget = Budget()
    timeouts: Timeouts = Timeouts()
    on_chain_error: Literal["raise", "fallback"] = "raise"

    @classmethod
    def load(cls, path: str | Path, runnables: Mapping[str, Any] | None = None) -> Self:
        """Read a policy from a YAML or JSON file.

        Runnables and functions stand there by a name of `runnables`, or as `package.module:name`, which is imported:
        load only files that you would also run.

        Raises:
            PolicyError: the file is missing, or something in it can't be used.
        """
        # Here and not above: it brings YAML, which a policy from code does not need.
        from aspire_guard.routing.policy_file import read_policy

        return read_policy(cls, Path(path), runnables or {})

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.thresholds and self.group_by is None:
            raise ValueError(
                "expected group_by beside thresholds, found none; name the metadata key of the group"
            )
        if self.bands:
            self._check_bands()
        return self

    def _check_bands(self) -> None:
        starts = [band.at_least for band in self.bands]
        numbers = [start for start in starts if not isinstance(start, str)]
        if starts[-1] != 0 or any(low >= high for high, low in pairwise(numbers)):
            raise ValueError(
                f"expected bands from the highest confidence down to 0, found {', '.join(map(str, starts))}; "
                "sort them, and let the last one have at_least=0"
            )
        if self.otherwise is not None:
            raise ValueError(
                "expected bands or otherwise, found both; give the routes to the last band"
            )
        if "accept" not in starts and (self.threshold is not None or self.thresholds):
            raise ValueError(
                'expected a band with at_least="accept" beside a threshold, found none; leave one out'
            )

    @property
    def fallbacks(self) -> tuple[Runnable[Any, Any], ...]:
        """All runnables that the policy may ask, each once, in the order of the bands."""
        row = [route for _, routes in self._rows for route in routes]
        row += [
            route.otherwise
            for route in row
            if isinstance(route, HumanReview) and route.otherwise is not None
        ]
        found = [route.runnable for route in row if isinstance(route, Fallback)]
        return tuple({id(runnable): runnable for runnable in found}.values())

    def group(self, metadata: Mapping[str, Any]) -> str | None:
        """The group that a config's metadata names; None where there is none."""
        found = metadata.get(self.group_by) if self.group_by is not None else None
        return None if found is None else str(found)

    def cuts(self, evaluator: Evaluator, group: str | None = None) -> ResolvedBands:
        """The bands with the numbers that hold for one evaluator and group.

        Raises:
            PolicyError: a band names a threshold that the evaluator does not have.
        """
        own = self.thresholds.get(group, self.threshold) if group is not None else self.threshold
        return ResolvedBands(
            tuple(
                ResolvedBand.of(at_least, row, own, evaluator, group)
                for at_least, row in self._rows
            )
        )

    @property
    def _rows(self) -> tuple[tuple[float | str, Routes], ...]:
        """Where each band begins, and its routes."""
        if self.bands:
            return tuple((band.at_least, band.row) for band in self.bands)
        return ("accept", _ACCEPT), (0.0, as_routes(self.otherwise or Abstain(self.abstention)))
