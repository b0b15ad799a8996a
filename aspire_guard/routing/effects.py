"""The effects that a flow asks for, and the result that answers each of them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from aspire_guard.clearing import MemoryBefore, MemoryClearing
from aspire_guard.exchange import Exchange
from aspire_guard.exchange.run_recorder import RunRecorder
from aspire_guard.review.item import Decision, ReviewItem
from aspire_guard.routing.routes import Custom, Fallback, ReviewDesk
from aspire_guard.routing.scoring import ScoringResult
from aspire_guard.verdict import Verdict

Result = TypeVar("Result")


class Effect(Generic[Result]):
    """Work that a flow asks for, and that a `Result` answers."""


def request(effect: Effect[Result]) -> Generator[Effect[Any], Any, Result]:
    """Ask for an effect inside a flow, as `result = yield from request(effect)`.

    Raises:
        Exception: whatever is thrown into the flow in place of a result.
    """
    result: Result = yield effect
    return result


@dataclass(frozen=True)
class ChainRan:
    """The result of a run of the chain or of a fallback.

    Attributes:
        output: the output of the run.
        recorder: the retrieved documents and messages that were seen inside the run.
        seconds: the time spent, in seconds. In a batch, an even share of it.
        retries: the number of further tries.
        memories: the memories of the runnable as they were before the run.
    """

    output: Any
    recorder: RunRecorder = field(default_factory=RunRecorder)
    seconds: float | None = None
    retries: int = 0
    memories: Sequence[MemoryBefore] = ()


@dataclass(frozen=True)
class Reviewed:
    """The result of a review.

    Attributes:
        ticket: the ticket's id in the queue, or None if no queue is behind the review, as with a graph's interrupt.
        decision: the person's decision, or None if nobody decided in time.
        seconds: the time spent, in seconds.
    """

    ticket: str | None = None
    decision: Decision | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class CustomRan:
    """The result of a custom route.

    Attributes:
        output: the output that leaves the guard.
        seconds: the time spent, in seconds.
    """

    output: Any
    seconds: float | None = None


@dataclass(frozen=True)
class EffectFailed:
    """An effect that ended in an error.

    Attributes:
        error: the error of the last try.
        seconds: the time spent, in seconds, or None if it is unknown.
        retries: the number of further tries.
        ticket: the id of a review that was submitted before the queue failed, or None in all other cases.
    """

    error: Exception
    seconds: float | None = None
    retries: int = 0
    ticket: str | None = None


@dataclass(frozen=True)
class RunChain(Effect[ChainRan]):
    """A run of the chain. Its error is thrown into the flow.

    Attributes:
        timeout: the seconds that it may take, or None for no limit.
    """

    timeout: float | None = None


@dataclass(frozen=True)
class RunFallback(Effect[ChainRan | EffectFailed]):
    """A run of a fallback.

    Attributes:
        route: the fallback.
        timeout: the seconds that one try may take, or None for no limit.
        within: the seconds that all tries together may take, or None for no limit.
    """

    route: Fallback
    timeout: float | None = None
    within: float | None = None


@dataclass(frozen=True)
class ScoreExchange(Effect[ScoringResult]):
    """The scoring of an exchange.

    Attributes:
        exchange: the exchange to score.
        timeout: the seconds that it may take, or None for no limit.
    """

    exchange: Exchange
    timeout: float | None = None


@dataclass(frozen=True)
class RequestReview(Effect[Reviewed | EffectFailed]):
    """A review by a person.

    Attributes:
        queue: the queue that holds the item.
        item: the answer as the person sees it.
        wait: the seconds to wait for the decision, or None to leave only a ticket.
        within: the seconds that all of it may take, or None for no limit.
    """

    queue: ReviewDesk
    item: ReviewItem
    wait: float | None = None
    within: float | None = None


@dataclass(frozen=True)
class CallCustom(Effect[CustomRan | EffectFailed]):
    """A call of a custom route's function.

    Attributes:
        route: the custom route.
        output: the best-scored output so far, or None if there is no answer.
        verdict: the verdict so far.
        timeout: the seconds that it may take, or None for no limit.
    """

    route: Custom
    output: Any
    verdict: Verdict
    timeout: float | None = None


@dataclass(frozen=True)
class ClearMemory(Effect[None]):
    """The clearing of a chain's memories of a rejected answer.

    Attributes:
        clearing: the memories, and what to clear them of.
    """

    clearing: MemoryClearing
