"""Many flows as one, so that one call of the chain answers a batch, and one call of the evaluator scores it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from aspire_guard.routing.effects import (
    CallCustom,
    ClearMemory,
    Effect,
    RequestReview,
    RunChain,
    RunFallback,
    ScoreExchange,
)
from aspire_guard.routing.flow import Flow, Outcome

# All answers are there before the first is scored, so that scoring is one call. People are asked last.
_ORDER = (RunChain, RunFallback, ScoreExchange, CallCustom, RequestReview, ClearMemory)


@dataclass(frozen=True)
class Batch:
    """Effects of the same kind that several flows ask for. The answer to a batch is a list of results.

    Attributes:
        flows: the indices of the flows that ask.
        requests: the effects they ask for, in the same order. All are of one kind, and fallbacks name the same route.
    """

    flows: list[int]
    requests: list[Any]


def batch_flows(flows: Sequence[Flow]) -> Generator[Batch, list[Any], list[Outcome | Exception]]:
    """Drive many flows, with the effects of one kind in one round.

    A result that is an exception is thrown into its flow.

    Returns:
        The outcome of each flow, or the error it ended in.
    """
    outcomes: dict[int, Outcome | Exception] = {}
    waiting: dict[int, Effect[Any]] = {}

    def advance(index: int, step: Callable[[], Effect[Any]]) -> None:
        """Let a flow run to its next effect or to its end."""
        try:
            waiting[index] = step()
        except StopIteration as stop:
            outcomes[index] = stop.value
        except Exception as error:
            outcomes[index] = error

    for index, flow in enumerate(flows):
        advance(index, partial(next, flow))
    while waiting:
        indices = _choose_round(waiting)
        effects = [waiting.pop(index) for index in indices]
        results = yield Batch(indices, effects)
        for index, result in zip(indices, results, strict=True):
            flow = flows[index]
            resume = flow.throw if isinstance(result, Exception) else flow.send
            advance(index, partial(resume, result))
    return [outcomes[index] for index in range(len(flows))]


def _choose_round(waiting: dict[int, Effect[Any]]) -> list[int]:
    """Return the indices of the flows whose effects make up the next round."""
    if len(waiting) == 1:
        return list(waiting)
    first = min(waiting.values(), key=lambda effect: _ORDER.index(type(effect)))
    return [index for index, effect in waiting.items() if _can_share_round(effect, first)]


def _can_share_round(effect: Effect[Any], other: Effect[Any]) -> bool:
    if isinstance(effect, RunFallback) and isinstance(other, RunFallback):
        return effect.route is other.route
    return type(effect) is type(other)
