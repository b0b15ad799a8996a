"""Many flows as one, so that a batch is generated, and scored, in one call each."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from aspire_guard.routing.effects import (
    CallCustom,
    Effect,
    RequestReview,
    RunChain,
    RunFallback,
    ScoreExchange,
)
from aspire_guard.routing.flow import Flow, Outcome

# All answers are there before the first is scored, so that scoring is one call; people are asked last.
_ORDER = (RunChain, RunFallback, ScoreExchange, CallCustom, RequestReview)


@dataclass(frozen=True)
class Batch:
    """Asks for the same kind of work for several flows at once; answered with a list of results.

    Attributes:
        flows: which flows ask, by their places.
        requests: what they ask, in the same order; all of one kind, and of fallbacks all for the same one.
    """

    flows: list[int]
    requests: list[Any]


def batch_flows(flows: Sequence[Flow]) -> Generator[Batch, list[Any], list[Outcome | Exception]]:
    """Many flows as one, which asks for like work in one round; gives each flow's outcome or error, in order.

    A result that is an exception is thrown into its flow.
    """
    outcomes: dict[int, Outcome | Exception] = {}
    waiting: dict[int, Effect] = {}

    def advance(place: int, step: Callable[[], Effect]) -> None:
        try:
            waiting[place] = step()
        except StopIteration as stop:
            outcomes[place] = stop.value
        except Exception as error:
            outcomes[place] = error

    for place, flow in enumerate(flows):
        advance(place, partial(next, flow))
    while waiting:
        places = _next(waiting)
        results = yield Batch(places, [waiting.pop(place) for place in places])
        for place, result in zip(places, results, strict=True):
            resume = flows[place].throw if isinstance(result, Exception) else flows[place].send
            advance(place, partial(resume, result))
    return [outcomes[place] for place in range(len(flows))]


def _next(waiting: dict[int, Effect]) -> list[int]:
    """The places whose requests make up the next round."""
    if len(waiting) == 1:
        return list(waiting)
    first = min(waiting.values(), key=lambda request: _ORDER.index(type(request)))
    return [place for place, request in waiting.items() if _alike(request, first)]


def _alike(request: Effect, other: Effect) -> bool:
    if isinstance(request, RunFallback) and isinstance(other, RunFallback):
        return request.route is other.route
    return type(request) is type(other)
