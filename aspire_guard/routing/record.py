"""What is kept of the way of one answer: the steps that were tried, the answers so far, and the verdict on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from aspire_guard.errors import ExchangeError, ReviewQueueError, RouteTimeoutError, UnguardedWriteError
from aspire_guard.exchange import Exchange
from aspire_guard.routing.cuts import Cuts
from aspire_guard.routing.evaluation import Evaluated
from aspire_guard.routing.requests import Generated
from aspire_guard.verdict import RouteName, Score, Step, StepName, Timings, Verdict

# Errors of ours that never hold an answer; any other may quote one.
_SPEAKING = (ExchangeError, ReviewQueueError, RouteTimeoutError, UnguardedWriteError)
_WHO: dict[StepName, str] = {
    "chain": "chain",
    "fallback": "fallback",
    "human_review": "review queue",
    "custom": "custom route",
}
_NO_TIMINGS = Timings()


@dataclass(frozen=True)
class Candidate:
    """A scored answer.

    Attributes:
        output: what holds it.
        exchange: how it was read.
        score: what the evaluator said; None where it failed.
        own: whether the chain itself gave it.
    """

    output: Any
    exchange: Exchange
    score: Score | None
    own: bool


class Record:
    """The record of one answer.

    Args:
        cuts: what its scores are compared with.

    Attributes:
        candidates: the scored answers, in the order of their coming; the chain's own is the first.
        chain_error: what the chain raised; None where it gave an output.
        ticket: of a review; None where none was submitted.
        reviewed: what a reviewer decided, in a sentence; None where nobody did.
    """

    def __init__(self, cuts: Cuts) -> None:
        self.cuts = cuts
        self.candidates: list[Candidate] = []
        self.chain_error: Exception | None = None
        self.ticket: str | None = None
        self.reviewed: str | None = None
        self._steps: list[Step] = []
        self._timings = _NO_TIMINGS

    @property
    def best(self) -> Candidate | None:
        """The best-scored answer so far, of equals the first; None where there is none."""
        return max(self.candidates, key=lambda one: one.score.confidence if one.score else -1.0, default=None)

    def answered(
        self,
        source: Literal["chain", "fallback"],
        generated: Generated,
        exchange: Exchange,
        evaluated: Evaluated,
        name: str | None,
    ) -> Candidate:
        """Keep an answer, and how it was made and scored."""
        spent = [seconds for seconds in (generated.seconds, evaluated.seconds) if seconds is not None]
        self._steps.append(
            Step(
                route=source,
                name=name,
                confidence=evaluated.score.confidence if evaluated.score else None,
                error=None if evaluated.error is None else str(evaluated.error),
                seconds=sum(spent) if spent else None,
                retries=generated.retries,
            )
        )
        if source == "chain":
            self._timings = Timings(generate=generated.seconds, score=evaluated.seconds)
        candidate = Candidate(generated.output, exchange, evaluated.score, own=source == "chain")
        self.candidates.append(candidate)
        return candidate

    def done(self, step: StepName, seconds: float | None) -> None:
        """Note a step that came to an end."""
        self._steps.append(Step(route=step, seconds=seconds))

    def passed_over(self, step: StepName, why: str, name: str | None = None) -> None:
        """Note a step that was not taken."""
        self._steps.append(Step(route=step, name=name, error=why))

    def failed(
        self,
        step: StepName,
        error: Exception,
        *,
        name: str | None = None,
        seconds: float | None = None,
        retries: int = 0,
    ) -> None:
        """Note an error, without the words of those that may quote an answer: they are in the trace."""
        told = str(error) if isinstance(error, _SPEAKING) else f"the {_WHO[step]} raised {type(error).__name__}"
        self._steps.append(Step(route=step, name=name, error=told, seconds=seconds, retries=retries))

    def verdict(
        self, candidate: Candidate | None, route: RouteName, *, released: bool, accepted: bool = False
    ) -> Verdict:
        """The verdict that `route` puts on a candidate; None: the chain failed, and no other answer came."""
        score = None if candidate is None else candidate.score
        least = self.cuts.least_accepted
        # What the evaluator promises is about the chain's own answers that reach the threshold.
        promised = least is not None and (route == "abstain" or (route == "accept" and self.cuts.accepts(score)))
        return Verdict(
            accepted=accepted,
            released=released,
            route=route,
            confidence=None if score is None else score.confidence,
            threshold=self.cuts.threshold,
            score=score,
            reason=self.reviewed or ("the chain failed" if candidate is None else self.cuts.reason(score)),
            guarantee=least.guarantee if least is not None and promised else None,
            error=next((step.error for step in reversed(self._steps) if step.error is not None), None),
            timings=self._timings,
            steps=tuple(self._steps),
            ticket=self.ticket,
        )
