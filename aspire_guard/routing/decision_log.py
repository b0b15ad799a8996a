"""What is kept of the way of one answer: the steps that were tried, the answers so far, and the verdict on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from aspire_guard.errors import (
    ExchangeError,
    ReviewQueueError,
    RouteTimeoutError,
    UnguardedWriteError,
)
from aspire_guard.exchange import Exchange
from aspire_guard.review.item import Decision
from aspire_guard.routing.bands import ResolvedBands
from aspire_guard.routing.effects import ChainRan
from aspire_guard.routing.scoring import ScoringResult
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

REVIEW_REASONS: dict[str, str] = {
    "approve": "a reviewer approved the answer",
    "edit": "a reviewer edited the answer",
    "reject": "a reviewer rejected the answer",
    "respond": "a reviewer responded in place of the answer",
}


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


class DecisionLog:
    """The record of one answer.

    Args:
        cuts: what its scores are compared with.

    Attributes:
        candidates: the scored answers, in the order of their coming; the chain's own is the first.
        chain_error: what the chain raised; None where it gave an output.
        ticket: of a review; None where none was submitted.
        reviewed: what a reviewer decided, in a sentence; None where nobody did.
    """

    def __init__(self, cuts: ResolvedBands) -> None:
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
        return max(
            self.candidates,
            key=lambda one: one.score.confidence if one.score else -1.0,
            default=None,
        )

    def answered(
        self,
        source: Literal["chain", "fallback"],
        generated: ChainRan,
        exchange: Exchange,
        evaluated: ScoringResult,
        name: str | None,
    ) -> Candidate:
        """Keep an answer, and how it was made and scored."""
        spent = [
            seconds for seconds in (generated.seconds, evaluated.seconds) if seconds is not None
        ]
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

    def log_skipped(self, step: StepName, why: str, name: str | None = None) -> None:
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
        told = (
            str(error)
            if isinstance(error, _SPEAKING)
            else f"the {_WHO[step]} raised {type(error).__name__}"
        )
        self._steps.append(
            Step(route=step, name=name, error=told, seconds=seconds, retries=retries)
        )

    def verdict(
        self,
        candidate: Candidate | None,
        route: RouteName,
        *,
        released: bool,
        accepted: bool = False,
        error: str | None = None,
    ) -> Verdict:
        """Make the verdict that `route` puts on a candidate.

        Args:
            candidate: the answer, or None if the chain failed and no other answer came.
            route: where the answer goes.
            released: tells whether any answer leaves the guard.
            accepted: tells whether that is the chain's own answer.
            error: what went wrong last. By default the last error of the steps.
        """
        score = None if candidate is None else candidate.score
        reason = self.reviewed or self._compare(candidate)
        return Verdict(
            accepted=accepted,
            released=released,
            route=route,
            confidence=None if score is None else score.confidence,
            threshold=self.cuts.threshold,
            score=score,
            reason=reason,
            guarantee=self._promise(route, score),
            error=error or self._last_error,
            timings=self._timings,
            steps=tuple(self._steps),
            ticket=self.ticket,
        )

    def _compare(self, candidate: Candidate | None) -> str:
        if candidate is None:
            return "the chain failed"
        return self.cuts.reason(candidate.score)

    def _promise(self, route: RouteName, score: Score | None) -> str | None:
        # The evaluator's promise is about the chain's own answers that reach the threshold.
        least = self.cuts.least_accepted
        if least is None:
            return None
        if route == "abstain" or (route == "accept" and self.cuts.accepts(score)):
            return least.guarantee
        return None

    @property
    def _last_error(self) -> str | None:
        errors = [step.error for step in self._steps if step.error is not None]
        return errors[-1] if errors else None


def decide_by_score(
    bands: ResolvedBands,
    result: ScoringResult,
    *,
    partly_released: bool = False,
) -> Verdict:
    """Make the verdict on an answer by its score alone: accepted or not.

    Args:
        bands: what the score is compared with.
        result: the score, or why there is none.
        partly_released: tells whether earlier sentences of the answer have left the guard already.
    """
    score, least = result.score, bands.least_accepted
    accepted = bands.accepts(score)
    reason = bands.reason(score)
    guarantee = None if least is None else least.guarantee
    if partly_released and not accepted:
        reason = f"{reason}, so the stream was cut; what came before had been released"
        # The promise is about whole answers.
        guarantee = None
    return Verdict(
        accepted=accepted,
        released=accepted or partly_released,
        route="accept" if accepted else "abstain",
        confidence=None if score is None else score.confidence,
        threshold=bands.threshold,
        score=score,
        reason=reason,
        guarantee=guarantee,
        error=None if result.error is None else str(result.error),
        timings=Timings(score=result.seconds),
    )


def apply_review(verdict: Verdict, decision: Decision) -> Verdict:
    """Make the verdict on an answer that had been withheld, after a reviewer has decided on it."""
    changes: dict[str, Any] = {"reason": REVIEW_REASONS[decision.action]}
    if decision.action != "reject":
        changes |= {
            "route": "human_review",
            "released": True,
            "accepted": decision.action == "approve",
        }
    return verdict.model_copy(update=changes)
