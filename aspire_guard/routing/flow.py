"""The way of one answer, written once: a generator that asks for work and receives its results.

It does no work itself, so the guard's sync and async loops drive the same flow, and a middleware can drive it by
hand with `next` and `send`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal

from langchain_core.documents import Document
from langchain_core.messages import AIMessage

from aspire_guard.errors import ExchangeError, ReviewQueueError, RouteTimeoutError
from aspire_guard.evaluators.protocol import Evaluator
from aspire_guard.exchange import Exchange, answer_in
from aspire_guard.review.item import Decision, ReviewItem
from aspire_guard.routing.abstain import abstain, attach
from aspire_guard.routing.evaluation import Evaluated
from aspire_guard.routing.interrupts import is_interrupt
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.routing.requests import (
    Answered,
    Applied,
    Apply,
    Ask,
    Evaluate,
    Failed,
    Generate,
    Generated,
    Request,
    RunFallback,
)
from aspire_guard.routing.routes import Abstain, Accept, Custom, Fallback, HumanReview, Route, Routes
from aspire_guard.verdict import RouteName, Score, Step, Timings, Verdict

__all__ = [
    "Answered",
    "Applied",
    "Apply",
    "Ask",
    "Evaluate",
    "Extract",
    "Failed",
    "Flow",
    "Generate",
    "Generated",
    "Outcome",
    "RunFallback",
    "answer_flow",
]

Extract = Callable[[Any, Any, Sequence[Document]], Exchange]

_DECIDED = {
    "approve": "a reviewer approved the answer",
    "edit": "a reviewer edited the answer",
    "reject": "a reviewer rejected the answer",
    "respond": "a reviewer responded in place of the answer",
}
# Errors of ours that never hold an answer; any other may quote one.
_SPEAKING = (ExchangeError, ReviewQueueError, RouteTimeoutError)


@dataclass(frozen=True)
class Outcome:
    """What leaves the guard: an output of the chain's type, and the verdict; None for a message that calls tools."""

    output: Any
    verdict: Verdict | None


Flow = Generator[Request, Any, Outcome]
_Part = Generator[Request, Any, Outcome | None]


def answer_flow(
    input: Any,
    evaluator: Evaluator,
    policy: RoutingPolicy,
    *,
    metadata: Mapping[str, Any] | None = None,
    extract: Extract = Exchange.from_run,
    clock: Callable[[], float] = perf_counter,
) -> Flow:
    """Generate, score, decide, and take the routes of the policy until one releases an answer or abstains.

    Args:
        input: the chain's input.
        evaluator: scores the answers.
        policy: what becomes of them.
        metadata: of the call's config, where the policy looks up the group.
        extract: reads the exchange from input, output and retrieved documents.
        clock: seconds that only grow, for the limits on time.

    Raises:
        ExchangeError: no question or answer can be read from the chain's input and output.
        EvaluationError: scoring failed, and the policy says to raise then.
        PolicyError: the policy names a threshold that the evaluator does not have.
    """
    return _Way(input, evaluator, policy, metadata or {}, extract, clock).flow()


@dataclass(frozen=True)
class _Candidate:
    """A scored answer; `own` where the chain itself gave it."""

    output: Any
    exchange: Exchange
    score: Score | None
    own: bool


class _Way:
    """One answer on its way: what was tried, what it cost, and the answers so far."""

    def __init__(
        self,
        input: Any,
        evaluator: Evaluator,
        policy: RoutingPolicy,
        metadata: Mapping[str, Any],
        extract: Extract,
        clock: Callable[[], float],
    ) -> None:
        self.input, self.evaluator, self.policy, self.extract, self.clock = input, evaluator, policy, extract, clock
        self.group = policy.group(metadata)
        self.started = clock()
        self.steps: list[Step] = []
        self.candidates: list[_Candidate] = []
        self.timings = _NO_TIMINGS
        self.hops, self.cost = 0, 0.0
        self.ticket: str | None = None
        self.chain_error: Exception | None = None
        self.review_reason: str | None = None

    def flow(self) -> Flow:
        self.cuts = self.policy.cuts(self.evaluator, self.group)
        try:
            generated: Generated = yield Generate(self._limit(self.policy.timeouts.chain))
        except Exception as error:
            if self.policy.on_chain_error == "raise" or is_interrupt(error):
                raise
            self.chain_error = error
            self.steps.append(Step(route="chain", error=_told(error, "chain")))
        else:
            outcome = yield from self._consider(generated, "chain")
            if outcome is not None:
                return outcome
        for route in self._routes():
            outcome = yield from self._take(route)
            if outcome is not None:
                return outcome
        return self._abstain(Abstain(self.policy.abstention))

    def _consider(self, generated: Generated, source: Literal["chain", "fallback"], name: str | None = None) -> _Part:
        """Score an output; its outcome where it is released at once."""
        answer = answer_in(generated.output)
        if isinstance(answer, AIMessage) and answer.tool_calls:
            return Outcome(generated.output, verdict=None)
        exchange = self.extract(self.input, generated.output, generated.watch.documents)
        exchange = generated.watch.measured(exchange, generated.output)
        fingerprint = getattr(self.evaluator, "fingerprint", None)
        evaluated = Evaluated(generated.watch.self_score(generated.output, fingerprint) if fingerprint else None)
        if evaluated.score is None:
            evaluated = yield from self._evaluate(exchange)
        if evaluated.error is not None and self.policy.on_error == "raise":
            raise evaluated.error
        self._note(generated, evaluated, source, name)
        candidate = _Candidate(generated.output, exchange, evaluated.score, own=source == "chain")
        self.candidates.append(candidate)
        if self.cuts.accepts(evaluated.score):
            return self._release(candidate, "accept" if candidate.own else "fallback")
        return None

    def _evaluate(self, exchange: Exchange) -> Generator[Request, Any, Evaluated]:
        if self._late:
            return Evaluated(error=RouteTimeoutError(_NO_TIME))
        evaluated: Evaluated = yield Evaluate(exchange, self._limit(self.policy.timeouts.evaluator))
        return evaluated

    def _note(
        self, generated: Generated, evaluated: Evaluated, source: Literal["chain", "fallback"], name: str | None
    ) -> None:
        spent = [seconds for seconds in (generated.seconds, evaluated.seconds) if seconds is not None]
        self.steps.append(
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
            self.timings = Timings(generate=generated.seconds, score=evaluated.seconds)

    def _routes(self) -> Routes:
        score = self.candidates[0].score if self.candidates else None
        failed = bool(self.candidates) and score is None
        return () if failed and self.policy.on_error == "abstain" else self.cuts.routes(score)

    def _take(self, route: Route) -> _Part:
        if isinstance(route, Abstain):
            return self._abstain(route)
        if isinstance(route, Accept):
            return self._release(self.best, "accept") if self.best is not None and self.best.score else None
        if isinstance(route, Fallback):
            return (yield from self._fall_back(route))
        if isinstance(route, HumanReview):
            return (yield from self._review(route))
        return (yield from self._apply(route))

    def _fall_back(self, route: Fallback) -> _Part:
        refusal = self._refusal(route)
        if refusal is not None:
            self.steps.append(Step(route="fallback", name=route.label, error=refusal))
            return None
        self.hops, self.cost = self.hops + 1, self.cost + route.cost
        timeout = self._limit(route.timeout or self.policy.timeouts.fallback)
        reply: Generated | Failed = yield RunFallback(route, timeout, self._left)
        if isinstance(reply, Generated):
            try:
                return (yield from self._consider(reply, "fallback", route.label))
            except ExchangeError as error:
                reply = Failed(error, reply.seconds, reply.retries)
        told, seconds, retries = _told(reply.error, "fallback"), reply.seconds, reply.retries
        self.steps.append(Step(route="fallback", name=route.label, error=told, seconds=seconds, retries=retries))
        return None

    def _refusal(self, route: Fallback) -> str | None:
        """Why a fallback may not be asked; None where it may."""
        budget = self.policy.budget
        if self._late:
            return _NO_TIME
        if self.hops >= budget.hops:
            return f"the budget of {budget.hops} hops is used up"
        if budget.seconds is not None and self.clock() - self.started >= budget.seconds:
            return f"the budget of {budget.seconds:g} s is used up"
        if budget.cost is not None and self.cost + route.cost > budget.cost:
            return f"its cost of {route.cost:g} is more than the budget has left"
        return None

    def _review(self, route: HumanReview) -> _Part:
        outcome = yield from self._ask(route)
        if outcome is None and route.otherwise is not None:
            return (yield from self._take(route.otherwise))
        return outcome

    def _ask(self, route: HumanReview) -> _Part:
        best = self.best
        if best is None:
            return None
        if self._late:
            self.steps.append(Step(route="human_review", error=_NO_TIME))
            return None
        item = ReviewItem(
            **best.exchange.model_dump(),
            confidence=best.score.confidence if best.score else None,
            reason=self.cuts.reason(best.score),
            group=self.group,
        )
        reply: Answered | Failed = yield Ask(route.queue, item, route.wait and self._limit(route.wait), self._left)
        self.ticket = reply.ticket
        if isinstance(reply, Failed):
            told = _told(reply.error, "review queue")
            self.steps.append(Step(route="human_review", error=told, seconds=reply.seconds))
            return None
        self.steps.append(Step(route="human_review", seconds=reply.seconds))
        return None if reply.decision is None else self._decided(best, reply.decision)

    def _decided(self, candidate: _Candidate, decision: Decision) -> Outcome | None:
        self.review_reason = _DECIDED[decision.action]
        if decision.action == "reject":
            return None
        if decision.text is None:
            return self._release(candidate, "human_review")
        output = abstain(candidate.output, decision.text, candidate.exchange.answer)
        verdict = self._verdict(candidate, "human_review", released=True)
        return Outcome(attach(output, verdict), verdict)

    def _apply(self, route: Custom) -> _Part:
        if self._late:
            self.steps.append(Step(route="custom", error=_NO_TIME))
            return None
        best = self.best
        output = None if best is None else best.output
        so_far = self._verdict(best, "custom", released=False)
        reply: Applied | Failed = yield Apply(route, output, so_far, self._left)
        if isinstance(reply, Failed):
            self.steps.append(Step(route="custom", error=_told(reply.error, "custom route"), seconds=reply.seconds))
            return None
        self.steps.append(Step(route="custom", seconds=reply.seconds))
        answer = answer_in(reply.output)
        verdict = self._verdict(best, "custom", released=best is not None and answer == answer_in(best.output))
        return Outcome(attach(reply.output, verdict), verdict)

    def _release(self, candidate: _Candidate, route: RouteName) -> Outcome:
        verdict = self._verdict(candidate, route, released=True, accepted=candidate.own)
        return Outcome(attach(candidate.output, verdict), verdict)

    def _abstain(self, route: Abstain) -> Outcome:
        if not self.candidates:
            assert self.chain_error is not None
            # There is no output whose type the abstention could take.
            raise self.chain_error
        verdict = self._verdict(self.best, "abstain", released=False)
        message = route.message
        if not isinstance(message, str):
            try:
                message = message(verdict)
            except Exception as error:
                if is_interrupt(error):
                    raise
                told = f"the abstention's function raised {type(error).__name__}"
                message, verdict = self.policy.abstention, verdict.model_copy(update={"error": told})
        first = self.candidates[0]
        return Outcome(attach(abstain(first.output, message, first.exchange.answer), verdict), verdict)

    def _verdict(
        self, candidate: _Candidate | None, route: RouteName, *, released: bool, accepted: bool = False
    ) -> Verdict:
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
            reason=self.review_reason or ("the chain failed" if candidate is None else self.cuts.reason(score)),
            guarantee=least.guarantee if least is not None and promised else None,
            error=next((step.error for step in reversed(self.steps) if step.error is not None), None),
            timings=self.timings,
            steps=tuple(self.steps),
            ticket=self.ticket,
        )

    @property
    def best(self) -> _Candidate | None:
        """The best-scored answer so far, of equals the first; None where there is none."""
        return max(self.candidates, key=lambda one: one.score.confidence if one.score else -1.0, default=None)

    @property
    def _left(self) -> float | None:
        """Seconds that are left of all; None where there is no limit."""
        overall = self.policy.timeouts.overall
        return None if overall is None else max(0.0, overall - (self.clock() - self.started))

    @property
    def _late(self) -> bool:
        return self._left == 0.0

    def _limit(self, seconds: float | None) -> float | None:
        """A time limit that also keeps to the overall one."""
        left = self._left
        if seconds is None or left is None:
            return left if seconds is None else seconds
        return min(seconds, left)


_NO_TIME, _NO_TIMINGS = "the overall time is used up", Timings()


def _told(error: Exception, who: str) -> str:
    """What went wrong, without the words of errors that may quote an answer: those are in the trace."""
    return str(error) if isinstance(error, _SPEAKING) else f"the {who} raised {type(error).__name__}"
