"""The routes that an answer can take, and the limits on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Protocol, runtime_checkable

from langchain_core.runnables.base import coerce_to_runnable
from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from aspire_guard.review.item import Decision, ReviewItem, Ticket
from aspire_guard.verdict import Verdict

ABSTENTION = "I can't answer this question."

_STRICT = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
_Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1)]


@runtime_checkable
class ReviewDesk(Protocol):
    """Where answers wait for a person; `aspire_guard.review.ReviewQueue` is one."""

    def submit(self, item: ReviewItem) -> Ticket:
        """Hand in an answer; the same item again gives the same ticket."""
        ...

    def wait(self, ticket_id: str, timeout: float) -> Decision | None:
        """The decision, as soon as there is one; None after `timeout` seconds."""
        ...

    async def await_(self, ticket_id: str, timeout: float) -> Decision | None:
        """As `wait`."""
        ...


def _desk(queue: object) -> ReviewDesk:
    if isinstance(queue, ReviewDesk):
        return queue
    if not isinstance(queue, str):
        raise ValueError(
            f"expected a ReviewQueue or the URL of its database, found {type(queue).__name__}; give one"
        )
    # Here and not above: it brings SQLAlchemy, which a policy without a queue need not wait for.
    from aspire_guard.review.queue import ReviewQueue

    return ReviewQueue(queue)


@dataclass(frozen=True, config=_STRICT)
class Accept:
    """Release the answer."""


@dataclass(frozen=True, config=_STRICT)
class Abstain:
    """Say that there is no answer, in the type of the chain's output.

    Attributes:
        message: what is said, or a function of the verdict that gives it.
    """

    message: str | Callable[[Verdict], str] = ABSTENTION


@dataclass(frozen=True, config=_STRICT)
class Fallback:
    """Ask another runnable; its answer is scored too, and released where its band accepts.

    Attributes:
        runnable: takes the chain's input, gives an output of the chain's type.
        timeout: seconds for one try; None for the policy's `timeouts.fallback`.
        retries: further tries after an error, with growing pauses; not after one whose `retryable` is False.
        cost: of one call, in the unit of the budget; tries count as one call.
        name: of its steps in the verdict; by default the runnable's own.
    """

    runnable: Annotated[Any, BeforeValidator(coerce_to_runnable)]
    timeout: _Seconds | None = None
    retries: int = Field(default=0, ge=0)
    cost: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    name: str | None = None

    @property
    def label(self) -> str:
        """What its steps are called."""
        return self.name or str(self.runnable.get_name())


@dataclass(frozen=True, config=_STRICT)
class Custom:
    """Let a function make the output.

    Attributes:
        function: of the chain's input, the best-scored output (None where no answer came) and the verdict so far;
            what it returns is released as it is. Under the async methods it runs in a thread.
    """

    function: Callable[[Any, Any, Verdict], Any]


@dataclass(frozen=True, config=_STRICT)
class HumanReview:
    """Put the best-scored answer before a person.

    Attributes:
        queue: where it waits for one: a ReviewQueue, or the URL of its database.
        wait: seconds to wait for the decision; None: don't wait, only leave a ticket.
        otherwise: where to when no one decides in time, the answer is rejected or the queue fails; None: to the next
            route of the band.
    """

    queue: Annotated[Any, BeforeValidator(_desk)]
    wait: _Seconds | None = None
    otherwise: Accept | Abstain | Fallback | Custom | None = None


Route = Accept | Abstain | Fallback | HumanReview | Custom
Routes = tuple[Route, ...]


def as_routes(routes: Any) -> Routes:
    """One route, or several in a row, as a row."""
    return tuple(routes) if isinstance(routes, list | tuple) else (routes,)


Row = Annotated[Route | Sequence[Route], BeforeValidator(as_routes), Field(min_length=1)]


@dataclass(frozen=True, config=_STRICT)
class Band:
    """From which confidence on an answer takes which routes.

    Attributes:
        at_least: the least confidence of the band, in [0, 1], or the name of a threshold in the evaluator's
            calibration; "accept" is the threshold that the policy has or else the evaluator.
        route: one route, or several that are tried in a row until one releases an answer; after the last: abstention.
    """

    at_least: _Share | str
    route: Row

    @property
    def row(self) -> Routes:
        """Its routes in a row."""
        return as_routes(self.route)


@dataclass(frozen=True, config=_STRICT)
class Budget:
    """What may be spent on the fallbacks of one answer; what is beyond it is passed over.

    Attributes:
        hops: calls of fallbacks.
        seconds: since the guard was called; no fallback begins later.
        cost: the sum of the fallbacks' costs.
    """

    hops: int = Field(default=3, ge=0)
    seconds: _Seconds | None = None
    cost: float | None = Field(default=None, ge=0, allow_inf_nan=False)


@dataclass(frozen=True, config=_STRICT)
class Timeouts:
    """How long work may take, in seconds; None for no limit.

    Sync work that takes longer goes on in a thread of its own, and its result is dropped; async work is cancelled.

    Attributes:
        chain: a run of the chain.
        evaluator: a call of the evaluator, which in a batch scores all answers.
        fallback: one try of a fallback.
        overall: all of it, from the call of the guard on.
    """

    chain: _Seconds | None = None
    evaluator: _Seconds | None = None
    fallback: _Seconds | None = None
    overall: _Seconds | None = None
