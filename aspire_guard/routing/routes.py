"""The routes that an answer can take, and the limits on the work for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Protocol, runtime_checkable

from langchain_core.runnables.base import coerce_to_runnable
from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from aspire_guard.review.item import Decision, ReviewItem
from aspire_guard.review.ticket import Ticket
from aspire_guard.verdict import Verdict

ABSTENTION = "I can't answer this question."

_STRICT = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
_Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1)]


@runtime_checkable
class ReviewDesk(Protocol):
    """A queue that holds answers for a person, such as `aspire_guard.review.ReviewQueue`."""

    def submit(self, item: ReviewItem) -> Ticket:
        """Submit an answer. The same item again gives the same ticket."""
        ...

    def wait(self, ticket_id: str, timeout: float) -> Decision | None:
        """Wait for the decision, and return None after `timeout` seconds without one."""
        ...

    async def await_(self, ticket_id: str, timeout: float) -> Decision | None:
        """Wait asynchronously; see `wait`."""
        ...


def _to_desk(queue: object) -> ReviewDesk:
    if isinstance(queue, ReviewDesk):
        return queue
    if not isinstance(queue, str | Mapping):
        raise ValueError(
            f"expected a ReviewQueue or the URL of its database, found {type(queue).__name__}; give one"
        )
    # Imported here because it brings SQLAlchemy, which a policy without a queue should not wait for.
    from aspire_guard.review.queue import ReviewQueue

    return ReviewQueue(queue) if isinstance(queue, str) else ReviewQueue(**queue)


@dataclass(frozen=True, config=_STRICT)
class Accept:
    """Release the answer."""


@dataclass(frozen=True, config=_STRICT)
class Abstain:
    """Say that there is no answer, in the type of the chain's output.

    Attributes:
        message: the text to say, or a function that makes it from the verdict.
    """

    message: str | Callable[[Verdict], str] = ABSTENTION


@dataclass(frozen=True, config=_STRICT)
class Fallback:
    """Ask another runnable. Its answer is scored too, and released if its band accepts.

    Attributes:
        runnable: the runnable, which takes the chain's input and gives an output of the chain's type.
        timeout: the seconds for one try, or None for the policy's `timeouts.fallback`.
        retries: the number of further tries after an error, with growing pauses. An error whose `retryable` is
            False ends the tries.
        cost: the cost of one call, in the unit of the budget. All tries together count as one call.
        name: the name of its steps in the verdict, or None for the runnable's own name.
        accept_from: the lowest confidence at which its answer is released, in [0, 1]. If None, the bands of the
            policy decide, as they do for the chain's answer.
    """

    runnable: Annotated[Any, BeforeValidator(coerce_to_runnable)]
    timeout: _Seconds | None = None
    retries: int = Field(default=0, ge=0)
    cost: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    name: str | None = None
    accept_from: _Share | None = None

    @property
    def label(self) -> str:
        """The name of its steps in the verdict."""
        return self.name or str(self.runnable.get_name())


@dataclass(frozen=True, config=_STRICT)
class Custom:
    """Let a function make the output.

    Attributes:
        function: takes the chain's input, the best-scored output (None if there is no answer) and the verdict so
            far. Its result is released unchanged. Under the async methods it runs in a thread.
    """

    function: Callable[[Any, Any, Verdict], Any]


@dataclass(frozen=True, config=_STRICT)
class HumanReview:
    """Show the best-scored answer to a person.

    Attributes:
        queue: the queue that holds the answer: a ReviewQueue, the URL of its database, or a mapping of its arguments.
        wait: the seconds to wait for the decision, or None to leave only a ticket.
        otherwise: the route to take if no one decides in time, the answer is rejected or the queue fails, or None
            for the next route of the band. Without `wait` it says what the user is told meanwhile, for example
            `Abstain(lambda verdict: f"Your ticket: {verdict.ticket}")`.
        metadata: what the reviewer should see besides the answer: the keys of the call's metadata to hand on, or a
            function that takes the chain's input and the call's metadata, and returns a mapping of JSON values.
    """

    queue: Annotated[Any, BeforeValidator(_to_desk)]
    wait: _Seconds | None = None
    otherwise: Accept | Abstain | Fallback | Custom | None = None
    metadata: tuple[str, ...] | Callable[[Any, Mapping[str, Any]], Mapping[str, Any]] = ()


Route = Accept | Abstain | Fallback | HumanReview | Custom
Routes = tuple[Route, ...]


def as_routes(routes: Any) -> Routes:
    """Return one route, or several routes in a list or tuple, as a tuple."""
    return tuple(routes) if isinstance(routes, list | tuple) else (routes,)


RouteOrRoutes = Annotated[Route | Sequence[Route], BeforeValidator(as_routes), Field(min_length=1)]


@dataclass(frozen=True, config=_STRICT)
class Band:
    """The routes of the answers from a confidence on.

    Attributes:
        at_least: the lowest confidence of the band, in [0, 1], or the name of a threshold in the evaluator's
            calibration. "accept" is the policy's threshold if it has one, or else the evaluator's.
        route: one route, or several routes that are tried in turn until one of them releases an answer. After the
            last route the guard abstains.
    """

    at_least: _Share | str
    route: RouteOrRoutes

    @property
    def routes(self) -> Routes:
        """The routes of the band, in the order in which they are tried."""
        return as_routes(self.route)


@dataclass(frozen=True, config=_STRICT)
class Budget:
    """The limits on what the fallbacks of one answer may spend. A fallback beyond them is skipped.

    Attributes:
        hops: the number of calls of fallbacks.
        seconds: the seconds since the call of the guard after which no fallback begins.
        cost: the sum of the fallbacks' costs.
    """

    hops: int = Field(default=3, ge=0)
    seconds: _Seconds | None = None
    cost: float | None = Field(default=None, ge=0, allow_inf_nan=False)


@dataclass(frozen=True, config=_STRICT)
class Timeouts:
    """The limits on how long the work may take, in seconds, or None for no limit.

    Sync work that takes longer keeps running in its own thread, and its result is dropped. Async work is cancelled.

    Attributes:
        chain: a run of the chain.
        evaluator: a call of the evaluator, which scores all answers of a batch.
        fallback: one try of a fallback.
        overall: all of the work, from the call of the guard on.
    """

    chain: _Seconds | None = None
    evaluator: _Seconds | None = None
    fallback: _Seconds | None = None
    overall: _Seconds | None = None
