"""What a flow asks for, and what it is answered with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aspire_guard.exchange import Exchange
from aspire_guard.exchange.run_recorder import RunRecorder
from aspire_guard.review.item import Decision, ReviewItem
from aspire_guard.routing.routes import Custom, Fallback, ReviewDesk
from aspire_guard.verdict import Verdict


@dataclass(frozen=True)
class RunChain:
    """Asks for a run of the chain; answered with a `Generated`, or with the chain's error thrown in.

    Attributes:
        timeout: seconds it may take; None for no limit.
    """

    timeout: float | None = None


@dataclass(frozen=True)
class RunFallback:
    """Asks for a run of a fallback; answered with a `Generated` or a `Failed`.

    Attributes:
        route: the fallback.
        timeout: seconds that one try may take; None for no limit.
        within: seconds for all tries together; None for no limit.
    """

    route: Fallback
    timeout: float | None = None
    within: float | None = None


@dataclass(frozen=True)
class ChainRan:
    """What a run of the chain or of a fallback gave.

    Attributes:
        output: its output.
        watch: what was seen inside it.
        seconds: time spent, in seconds; of a batch an even share.
        retries: how often it was tried again.
    """

    output: Any
    watch: RunRecorder = field(default_factory=RunRecorder)
    seconds: float | None = None
    retries: int = 0


@dataclass(frozen=True)
class EffectFailed:
    """Work that ended in an error.

    Attributes:
        error: the last one.
        seconds: time spent, in seconds; None where unknown.
        retries: how often it was tried again.
        ticket: of a review that was submitted before the queue failed; None otherwise.
    """

    error: Exception
    seconds: float | None = None
    retries: int = 0
    ticket: str | None = None


@dataclass(frozen=True)
class ScoreExchange:
    """Asks for the score of an exchange; answered with an `Evaluated`.

    Attributes:
        exchange: what to score.
        timeout: seconds it may take; None for no limit.
    """

    exchange: Exchange
    timeout: float | None = None


@dataclass(frozen=True)
class RequestReview:
    """Asks for a person's decision; answered with an `Answered` or a `Failed`.

    Attributes:
        queue: where the item waits.
        item: what the person sees.
        wait: seconds to wait for the decision; None: not at all.
        within: seconds for all of it; None for no limit.
    """

    queue: ReviewDesk
    item: ReviewItem
    wait: float | None = None
    within: float | None = None


@dataclass(frozen=True)
class Reviewed:
    """What became of a review.

    Attributes:
        ticket: its id in the queue; None where there is no queue behind it, as with an interrupt of a graph.
        decision: what the person decided; None where nobody did in time.
        seconds: time spent, in seconds.
    """

    ticket: str | None = None
    decision: Decision | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class CallCustom:
    """Asks for the output of a custom route; answered with an `Applied` or a `Failed`.

    Attributes:
        route: the custom route.
        output: the best-scored output so far; None where no answer came.
        verdict: the verdict so far.
        timeout: seconds it may take; None for no limit.
    """

    route: Custom
    output: Any
    verdict: Verdict
    timeout: float | None = None


@dataclass(frozen=True)
class CustomRan:
    """What a custom route gave.

    Attributes:
        output: what leaves the guard.
        seconds: time spent, in seconds.
    """

    output: Any
    seconds: float | None = None


Effect = RunChain | RunFallback | ScoreExchange | RequestReview | CallCustom
