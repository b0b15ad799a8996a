"""The way of one answer, written once: a generator that asks for work and receives its results.

It does no work itself, so the guard's sync and async loops drive the same flow, and a middleware can drive it by
hand with `next` and `send`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal

from aspire_guard.errors import ExchangeError, RouteTimeoutError
from aspire_guard.evaluators.protocol import Evaluator, find_fingerprint
from aspire_guard.exchange import Exchange, find_answer
from aspire_guard.exchange.run_recorder import Extract, extract_judged_exchange
from aspire_guard.langgraph_compat import is_interrupt
from aspire_guard.review.item import Decision, ReviewItem
from aspire_guard.routing.abstain import abstain, attach
from aspire_guard.routing.budget import NO_TIME, BudgetTracker
from aspire_guard.routing.decision_log import REVIEW_REASONS, Candidate, DecisionLog
from aspire_guard.routing.effects import (
    CallCustom,
    ChainRan,
    CustomRan,
    Effect,
    EffectFailed,
    RequestReview,
    Reviewed,
    RunChain,
    RunFallback,
    ScoreExchange,
)
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.routing.routes import (
    Abstain,
    Accept,
    Custom,
    Fallback,
    HumanReview,
    Route,
    Routes,
)
from aspire_guard.routing.scoring import ScoringResult
from aspire_guard.verdict import RouteName, Verdict


@dataclass(frozen=True)
class Outcome:
    """What leaves the guard: an output of the chain's type, and the verdict; None for a message that calls tools."""

    output: Any
    verdict: Verdict | None


Flow = Generator[Effect, Any, Outcome]
_Part = Generator[Effect, Any, Outcome | None]


def answer_flow(
    input: Any,
    evaluator: Evaluator,
    policy: RoutingPolicy,
    *,
    metadata: Mapping[str, Any] | None = None,
    generated: ChainRan | None = None,
    extract: Extract = Exchange.from_run,
    clock: Callable[[], float] = perf_counter,
) -> Flow:
    """Generate, score, decide, and take the routes of the policy until one releases an answer or abstains.

    Args:
        input: the chain's input.
        evaluator: scores the answers.
        policy: what becomes of them.
        metadata: of the call's config, where the policy looks up the group.
        generated: what the chain gave, where it has run already; None: the flow asks for it.
        extract: reads the exchange from input, output and retrieved documents.
        clock: seconds that only grow, for the limits on time.

    Raises:
        ExchangeError: no question or answer can be read from the chain's input and output.
        EvaluationError: scoring failed, and the policy says to raise then.
        PolicyError: the policy names a threshold that the evaluator does not have.
    """
    group = policy.group(metadata or {})
    limits = BudgetTracker(policy.budget, policy.timeouts, clock)
    record = DecisionLog(policy.cuts(evaluator, group))
    return (
        yield from _Way(input, evaluator, policy, group, generated, extract, limits, record).flow()
    )


@dataclass(frozen=True)
class _Way:
    """The routes that an answer takes, one after another."""

    input: Any
    evaluator: Evaluator
    policy: RoutingPolicy
    group: str | None
    generated: ChainRan | None
    extract: Extract
    limits: BudgetTracker
    record: DecisionLog

    def flow(self) -> Flow:
        try:
            generated = self.generated or (
                yield RunChain(self.limits.within(self.policy.timeouts.chain))
            )
        except Exception as error:
            if self.policy.on_chain_error == "raise" or is_interrupt(error):
                raise
            self.record.failed("chain", error)
            self.record.chain_error = error
        else:
            outcome = yield from self._consider(generated, "chain")
            if outcome is not None:
                return outcome
        for route in self._routes():
            outcome = yield from self._take(route)
            if outcome is not None:
                return outcome
        return self._abstain(Abstain(self.policy.abstention))

    def _consider(
        self, generated: ChainRan, source: Literal["chain", "fallback"], name: str | None = None
    ) -> _Part:
        """Score an output; its outcome where it is released at once."""
        exchange = extract_judged_exchange(
            self.extract, self.input, generated.output, generated.watch
        )
        if exchange is None:
            return Outcome(generated.output, verdict=None)
        fingerprint = find_fingerprint(self.evaluator)
        evaluated = ScoringResult(
            generated.watch.find_self_score(exchange, generated.output, fingerprint)
        )
        if evaluated.score is None:
            evaluated = yield from self._evaluate(exchange)
        if evaluated.error is not None and self.policy.on_error == "raise":
            raise evaluated.error
        candidate = self.record.answered(source, generated, exchange, evaluated, name)
        if self.record.cuts.accepts(evaluated.score):
            return self._release(candidate, "accept" if candidate.own else "fallback")
        return None

    def _evaluate(self, exchange: Exchange) -> Generator[Effect, Any, ScoringResult]:
        if self.limits.is_out_of_time:
            return ScoringResult(error=RouteTimeoutError(NO_TIME))
        evaluated: ScoringResult = yield ScoreExchange(
            exchange, self.limits.within(self.policy.timeouts.evaluator)
        )
        return evaluated

    def _routes(self) -> Routes:
        candidates = self.record.candidates
        score = candidates[0].score if candidates else None
        unscored = bool(candidates) and score is None
        return (
            () if unscored and self.policy.on_error == "abstain" else self.record.cuts.routes(score)
        )

    def _take(self, route: Route) -> _Part:
        if isinstance(route, Abstain):
            return self._abstain(route)
        if isinstance(route, Accept):
            best = self.record.best
            return self._release(best, "accept") if best is not None and best.score else None
        if isinstance(route, Fallback):
            return (yield from self._fall_back(route))
        if isinstance(route, HumanReview):
            return (yield from self._review(route))
        return (yield from self._apply(route))

    def _fall_back(self, route: Fallback) -> _Part:
        refusal = self.limits.refusal(route)
        if refusal is not None:
            self.record.log_skipped("fallback", refusal, route.label)
            return None
        self.limits.spend(route)
        timeout = self.limits.within(route.timeout or self.policy.timeouts.fallback)
        reply: ChainRan | EffectFailed = yield RunFallback(route, timeout, self.limits.left)
        if isinstance(reply, ChainRan):
            try:
                return (yield from self._consider(reply, "fallback", route.label))
            except ExchangeError as error:
                reply = EffectFailed(error, reply.seconds, reply.retries)
        self.record.failed(
            "fallback", reply.error, name=route.label, seconds=reply.seconds, retries=reply.retries
        )
        return None

    def _review(self, route: HumanReview) -> _Part:
        outcome = yield from self._ask(route)
        if outcome is None and route.otherwise is not None:
            return (yield from self._take(route.otherwise))
        return outcome

    def _ask(self, route: HumanReview) -> _Part:
        best = self.record.best
        if best is None:
            return None
        if self.limits.is_out_of_time:
            self.record.log_skipped("human_review", NO_TIME)
            return None
        item = ReviewItem(
            **best.exchange.model_dump(exclude={"log_likelihood"}),
            confidence=best.score.confidence if best.score else None,
            reason=self.record.cuts.reason(best.score),
            group=self.group,
        )
        wait = route.wait and self.limits.within(route.wait)
        reply: Reviewed | EffectFailed = yield RequestReview(
            route.queue, item, wait, self.limits.left
        )
        self.record.ticket = reply.ticket
        if isinstance(reply, EffectFailed):
            self.record.failed("human_review", reply.error, seconds=reply.seconds)
            return None
        self.record.done("human_review", reply.seconds)
        return None if reply.decision is None else self._decided(best, reply.decision)

    def _decided(self, candidate: Candidate, decision: Decision) -> Outcome | None:
        self.record.reviewed = REVIEW_REASONS[decision.action]
        if decision.action == "reject":
            return None
        if decision.text is None:
            return self._release(candidate, "human_review")
        output = self._replaced(candidate, decision.text)
        verdict = self.record.verdict(candidate, "human_review", released=True)
        return Outcome(attach(output, verdict), verdict)

    def _apply(self, route: Custom) -> _Part:
        if self.limits.is_out_of_time:
            self.record.log_skipped("custom", NO_TIME)
            return None
        best = self.record.best
        output = None if best is None else best.output
        so_far = self.record.verdict(best, "custom", released=False)
        reply: CustomRan | EffectFailed = yield CallCustom(route, output, so_far, self.limits.left)
        if isinstance(reply, EffectFailed):
            self.record.failed("custom", reply.error, seconds=reply.seconds)
            return None
        self.record.done("custom", reply.seconds)
        answer = find_answer(reply.output)
        verdict = self.record.verdict(
            best, "custom", released=best is not None and answer == find_answer(best.output)
        )
        return Outcome(attach(reply.output, verdict), verdict)

    def _release(self, candidate: Candidate, route: RouteName) -> Outcome:
        verdict = self.record.verdict(candidate, route, released=True, accepted=candidate.own)
        return Outcome(attach(candidate.output, verdict), verdict)

    def _abstain(self, route: Abstain) -> Outcome:
        if not self.record.candidates:
            assert self.record.chain_error is not None
            # There is no output whose type the abstention could take.
            raise self.record.chain_error
        best = self.record.best
        verdict = self.record.verdict(best, "abstain", released=False)
        message = route.message
        if not isinstance(message, str):
            try:
                message = message(verdict)
            except Exception as error:
                if is_interrupt(error):
                    raise
                message = self.policy.abstention
                told = f"the abstention's function raised {type(error).__name__}"
                verdict = self.record.verdict(best, "abstain", released=False, error=told)
        return Outcome(attach(self._replaced(self.record.candidates[0], message), verdict), verdict)

    def _replaced(self, candidate: Candidate, message: str) -> Any:
        """The candidate's output with `message` in place of its answer."""
        rejected = candidate.exchange.answer
        output = abstain(candidate.output, message, rejected)
        try:
            left = self.extract(self.input, output, ()).answer
        except ExchangeError:  # nothing is left that could be read as an answer
            return output
        if left == rejected != message:
            raise ExchangeError(
                f"expected an answer that {message!r} can replace, found that what you pass as answer= still reads the "
                "same one afterwards; give the policy a Custom route, which makes an output of that type"
            )
        return output
