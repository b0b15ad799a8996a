"""The log of one answer: the steps that were tried and the answers so far. Every verdict is made here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from aspire_guard.errors import (
    ChainError,
    ExchangeError,
    ReviewQueueError,
    RouteTimeoutError,
    UnguardedWriteError,
    name_error_type,
)
from aspire_guard.exchange import Exchange
from aspire_guard.review.item import Decision
from aspire_guard.routing.bands import ResolvedBands
from aspire_guard.routing.effects import ChainRan
from aspire_guard.routing.scoring import ScoringResult
from aspire_guard.verdict import (
    ContextSource,
    RouteName,
    Score,
    Step,
    StepName,
    Timings,
    Verdict,
)

# Our own errors that never hold an answer. The text of any other error may quote one.
_ERRORS_WITHOUT_ANSWER = (
    ExchangeError,
    ReviewQueueError,
    RouteTimeoutError,
    UnguardedWriteError,
)
_STEP_LABELS: dict[StepName, str] = {
    "chain": "chain",
    "fallback": "fallback",
    "human_review": "review queue",
    "custom": "custom route",
}
_NO_TIMINGS = Timings()

_REVIEW_REASONS: dict[str, str] = {
    "approve": "a reviewer approved the answer",
    "edit": "a reviewer edited the answer",
    "reject": "a reviewer rejected the answer",
    "respond": "a reviewer responded in place of the answer",
}


@dataclass(frozen=True)
class Candidate:
    """An answer that was scored, or that the evaluator failed to score.

    Attributes:
        output: the output that holds the answer.
        exchange: the exchange that was read from it.
        score: the evaluator's score, or None if it failed.
        run: the run that gave the output.
        is_from_chain: True if the chain itself gave the answer, False if a fallback did.
        accept_from: the threshold of the fallback that gave it, or None if the policy's bands decide.
        is_abstention: True if a guard inside the chain gave it in place of an answer that it had rejected.
        name: the name of the fallback that gave it, or None for the chain.
    """

    output: Any
    exchange: Exchange
    score: Score | None
    run: ChainRan
    is_from_chain: bool
    accept_from: float | None = None
    is_abstention: bool = False
    name: str | None = None


class DecisionLog:
    """The steps, answers and verdicts of one call of the guard.

    Args:
        bands: the bands that the scores are compared with.

    Attributes:
        candidates: the answers in the order in which they came. The chain's own is the first.
        released: the answer that leaves the guard unchanged, or None if there is none so far.
        chain_error: the error of the chain, or None if it gave an output.
        ticket: the id of the review, or None if no review was submitted.
    """

    def __init__(self, bands: ResolvedBands) -> None:
        self.bands = bands
        self.candidates: list[Candidate] = []
        self.released: Candidate | None = None
        self.chain_error: Exception | None = None
        self.ticket: str | None = None
        self._steps: list[Step] = []
        self._timings = _NO_TIMINGS
        self._review_reason: str | None = None

    @property
    def answers(self) -> list[Candidate]:
        """The candidates that are no abstentions of a guard inside the chain."""
        return [candidate for candidate in self.candidates if not candidate.is_abstention]

    @property
    def best(self) -> Candidate | None:
        """The best-scored answer so far, the first of equals, or None if there is no answer."""
        return max(self.answers, key=_get_confidence, default=None)

    def log_answer(
        self,
        source: Literal["chain", "fallback"],
        run: ChainRan,
        exchange: Exchange,
        result: ScoringResult,
        *,
        name: str | None,
        accept_from: float | None,
    ) -> Candidate:
        """Log an answer with its run and its score, and return it as a candidate.

        Args:
            source: the step that gave the answer.
            run: the run that gave it.
            exchange: the exchange that was read from its output.
            result: the score of the exchange.
            name: the name of the fallback, or None for the chain.
            accept_from: the threshold of the fallback's own, or None if the policy's bands decide.
        """
        score = result.score
        step = Step(
            route=source,
            name=name,
            confidence=None if score is None else score.confidence,
            error=None if result.error is None else str(result.error),
            seconds=_add_seconds(run.seconds, result.seconds),
            retries=run.retries,
        )
        self._steps.append(step)
        is_from_chain = source == "chain"
        if is_from_chain:
            self._timings = Timings(generate=run.seconds, score=result.seconds)
        candidate = Candidate(
            run.output, exchange, score, run, is_from_chain, accept_from, name=name
        )
        self.candidates.append(candidate)
        return candidate

    def log_inner_abstention(
        self,
        source: Literal["chain", "fallback"],
        run: ChainRan,
        exchange: Exchange,
        name: str | None,
    ) -> None:
        """Log that a guard inside the chain or the fallback has abstained. Its text is no answer to be scored."""
        step = Step(route=source, name=name, seconds=run.seconds, retries=run.retries)
        self._steps.append(step)
        is_from_chain = source == "chain"
        if is_from_chain:
            self._timings = Timings(generate=run.seconds)
        self.candidates.append(
            Candidate(run.output, exchange, None, run, is_from_chain, is_abstention=True)
        )

    def log_step(self, step: StepName, seconds: float | None) -> None:
        """Log a step that ended without an error."""
        self._steps.append(Step(route=step, seconds=seconds))

    def log_skip(self, step: StepName, reason: str, *, name: str | None = None) -> None:
        """Log a step that was not taken."""
        self._steps.append(Step(route=step, name=name, error=reason))

    def log_failure(
        self,
        step: StepName,
        error: Exception,
        *,
        name: str | None = None,
        seconds: float | None = None,
        retries: int = 0,
    ) -> None:
        """Log a step that ended in an error.

        The text of an error that may quote an answer is left out. It is in the trace.
        """
        error_type = name_error_type(error)
        if isinstance(error, ChainError):
            error_type = error.error_type
        text = f"the {_STEP_LABELS[step]} raised {error_type}"
        if isinstance(error, _ERRORS_WITHOUT_ANSWER):
            text = str(error)
        self._steps.append(
            Step(route=step, name=name, error=text, seconds=seconds, retries=retries)
        )

    def log_decision(self, decision: Decision) -> None:
        """Log a reviewer's decision, which is the reason of all later verdicts."""
        self._review_reason = _REVIEW_REASONS[decision.action]

    def make_verdict(
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
            route: the route that the answer takes.
            released: tells whether any answer leaves the guard.
            accepted: tells whether the chain's own answer leaves.
            error: the last error on the way. By default the last error of the steps.
        """
        score = None if candidate is None else candidate.score
        threshold = self.bands.threshold
        if candidate is not None and candidate.accept_from is not None:
            threshold = candidate.accept_from
        return Verdict(
            accepted=accepted,
            released=released,
            route=route,
            confidence=None if score is None else score.confidence,
            threshold=threshold,
            score=score,
            reason=self._review_reason or self._explain_score(candidate),
            guarantee=self._find_guarantee(route, score),
            error=error or self._last_error,
            timings=self._timings,
            steps=tuple(self._steps),
            ticket=self.ticket,
            context=None if candidate is None else candidate.exchange.context_source,
            declined=score is not None and score.is_refusal,
            out_of_domain=score is not None and score.out_of_domain,
        )

    def _explain_score(self, candidate: Candidate | None) -> str:
        if candidate is None:
            return "a guard inside the chain abstained" if self.candidates else "the chain failed"
        return self.bands.explain(candidate.score, candidate.accept_from)

    def _find_guarantee(self, route: RouteName, score: Score | None) -> str | None:
        # The evaluator's promise is about the chain's own answers that reach the threshold.
        if route == "abstain" or (route == "accept" and self.bands.accepts(score)):
            return self.bands.find_guarantee(score)
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
    context: ContextSource | None = None,
) -> Verdict:
    """Make the verdict on an answer by its score alone: accepted or not.

    Args:
        bands: the bands that the score is compared with.
        result: the score, or the error in its place.
        partly_released: tells whether earlier sentences of the answer have left the guard already.
        context: the place where the context was found, or None if there is no context.
    """
    score = result.score
    accepted = bands.accepts(score)
    reason = bands.explain(score)
    guarantee = bands.find_guarantee(score)
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
        context=context,
        declined=score is not None and score.is_refusal,
        out_of_domain=score is not None and score.out_of_domain,
    )


def apply_review(verdict: Verdict, decision: Decision) -> Verdict:
    """Make the verdict on an answer that had been withheld, after a reviewer has decided on it."""
    changes: dict[str, Any] = {"reason": _REVIEW_REASONS[decision.action]}
    if decision.action != "reject":
        changes["route"] = "human_review"
        changes["released"] = True
        changes["accepted"] = decision.action == "approve"
    return verdict.model_copy(update=changes)


def _get_confidence(candidate: Candidate) -> float:
    # An answer without a score ranks below every score.
    return -1.0 if candidate.score is None else candidate.score.confidence


def _add_seconds(*parts: float | None) -> float | None:
    """Return the sum of the known times, or None if no time is known."""
    known = [seconds for seconds in parts if seconds is not None]
    return sum(known) if known else None
