"""The policy, which chooses the routes of an answer by its confidence."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from langchain_core.runnables import Runnable
from pydantic import BaseModel, ConfigDict, Field, model_validator

from aspire_guard.evaluators.protocol import Evaluator
from aspire_guard.routing.bands import ResolvedBand, ResolvedBands, resolve_threshold
from aspire_guard.routing.routes import (
    ABSTENTION,
    Abstain,
    Accept,
    Band,
    Budget,
    Fallback,
    HumanReview,
    RouteOrRoutes,
    Routes,
    Timeouts,
    as_routes,
)

_ACCEPT: Routes = (Accept(),)
_Share = Annotated[float, Field(ge=0.0, le=1.0)]


class RoutingPolicy(BaseModel):
    """The guard's rules for scored answers.

    Without `bands`, an answer is released from the threshold on, and any other answer takes the routes of
    `otherwise`. With `bands`, each band of confidence has its own routes.

    Attributes:
        threshold: the lowest confidence that is released, in [0, 1], or None for the evaluator's own threshold.
        abstention: the text in place of an answer that is not released.
        on_error: the reaction to an evaluator that fails. "route" takes the routes of the lowest confidence but
            never releases the unscored answer, "abstain" abstains at once, and "raise" raises the error.
        otherwise: the routes of an answer below the threshold, or None for abstention. Only without `bands`.
        bands: the bands from the highest confidence to the lowest. The last band begins at 0.
        group_by: the key of the config's metadata that holds an answer's group, such as a tenant or a task.
        thresholds: the thresholds of single groups. A group without an entry has `threshold`, or else the
            evaluator's own.
        budget: the limits on what fallbacks may spend.
        timeouts: the limits on how long the work may take.
        on_chain_error: the reaction to a chain that fails or takes too long. "raise" raises the error. "fallback"
            tries the routes of the lowest confidence, and raises the error if no route has an output.
        declined: the routes of an answer that declines to answer, such as "I don't know", if the evaluator tells
            such answers apart. `Accept()` shows them. None gives them the routes of their confidence.
        out_of_domain: the reaction to an answer that is unlike those that the evaluator's confidence was calibrated on,
            for example far longer or in another script. "distrust" puts it into the lowest band, whatever its
            confidence, and "judge" goes by its confidence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    threshold: _Share | None = None
    abstention: str = ABSTENTION
    on_error: Literal["route", "abstain", "raise"] = "route"
    otherwise: RouteOrRoutes | None = None
    bands: tuple[Band, ...] = ()
    group_by: str | None = None
    thresholds: Mapping[str, _Share] = {}
    budget: Budget = Budget()
    timeouts: Timeouts = Timeouts()
    on_chain_error: Literal["raise", "fallback"] = "raise"
    declined: RouteOrRoutes | None = None
    out_of_domain: Literal["distrust", "judge"] = "distrust"

    @classmethod
    def load(cls, path: str | Path, runnables: Mapping[str, Any] | None = None) -> Self:
        """Read a policy from a YAML or JSON file.

        The file refers to runnables and functions by a name of `runnables`, or as `package.module:name`, which is
        imported. Load only files that you would also run.

        Raises:
            PolicyError: the file is missing, or something in it can't be used.
        """
        # Imported here because it brings YAML, which a policy from code does not need.
        from aspire_guard.routing.policy_file import read_policy

        return read_policy(cls, Path(path), runnables or {})

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.thresholds and self.group_by is None:
            raise ValueError(
                "expected group_by with thresholds, found none; name the metadata key of the group"
            )
        if self.bands:
            self._check_bands()
        return self

    def _check_bands(self) -> None:
        starts = [band.at_least for band in self.bands]
        numbers = [start for start in starts if not isinstance(start, str)]
        is_unsorted = any(low >= high for high, low in pairwise(numbers))
        if starts[-1] != 0 or is_unsorted:
            found = ", ".join(map(str, starts))
            raise ValueError(
                f"expected bands from the highest confidence down to 0, found {found}; "
                "sort them, and let the last one have at_least=0"
            )
        if self.otherwise is not None:
            raise ValueError(
                "expected bands or otherwise, found both; give the routes to the last band"
            )
        if "accept" not in starts and (self.threshold is not None or self.thresholds):
            raise ValueError(
                'expected a band with at_least="accept" for the threshold, found none; add it, or drop the threshold'
            )

    @property
    def fallbacks(self) -> tuple[Runnable[Any, Any], ...]:
        """All runnables that the policy may call, each once, in the order of the bands."""
        runnables = [route.runnable for route in self.routes if isinstance(route, Fallback)]
        return tuple({id(runnable): runnable for runnable in runnables}.values())

    @property
    def routes(self) -> Routes:
        """All routes of the policy in the order of the bands. The routes behind reviews come last."""
        routes = [route for _, routes in self._starts_and_routes for route in routes]
        routes += as_routes(self.declined or ())
        reviews = [route for route in routes if isinstance(route, HumanReview)]
        routes += [review.otherwise for review in reviews if review.otherwise is not None]
        return tuple(routes)

    @property
    def review_queues(self) -> tuple[Any, ...]:
        """The queue of each review, in the order of the bands."""
        routes = [route for _, routes in self._starts_and_routes for route in routes]
        return tuple(route.queue for route in routes if isinstance(route, HumanReview))

    def find_group(self, metadata: Mapping[str, Any]) -> str | None:
        """Return the group that a config's metadata names, or None if it names no group."""
        if self.group_by is None:
            return None
        group = metadata.get(self.group_by)
        return None if group is None else str(group)

    def resolve_bands(self, evaluator: Evaluator, group: str | None = None) -> ResolvedBands:
        """Return the bands with the numbers that hold for an evaluator and a group.

        Raises:
            PolicyError: a band names a threshold that the evaluator does not have.
        """
        policy_threshold = self.threshold
        if group is not None:
            policy_threshold = self.thresholds.get(group, self.threshold)
        bands: list[ResolvedBand] = []
        for at_least, routes in self._starts_and_routes:
            start = resolve_threshold(
                at_least, evaluator, group=group, policy_threshold=policy_threshold
            )
            bands.append(ResolvedBand(start.confidence, start.guarantee, routes))
        declined = None if self.declined is None else as_routes(self.declined)
        return ResolvedBands(tuple(bands), declined, self.out_of_domain == "distrust")

    @property
    def _starts_and_routes(self) -> tuple[tuple[float | str, Routes], ...]:
        """The beginning of each band as the policy gives it, and its routes."""
        if self.bands:
            return tuple((band.at_least, band.routes) for band in self.bands)
        otherwise = as_routes(self.otherwise or Abstain(self.abstention))
        return ("accept", _ACCEPT), (0.0, otherwise)
