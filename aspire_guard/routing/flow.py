"""The decision on one answer, as a generator that asks for effects and receives their results.

It does no work itself, so the guard's sync and async loops drive the same flow, and a middleware can drive it by
hand with `next` and `send`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Literal

from langchain_core.messages import AIMessage

from aspire_guard.clearing import Clearing, KnownValues, MemoryClearing, take_snapshot
from aspire_guard.errors import ExchangeError, RouteTimeoutError
from aspire_guard.evaluators.own_scores import find_own_score
from aspire_guard.evaluators.protocol import Evaluator
from aspire_guard.exchange import Exchange, find_answer
from aspire_guard.exchange.run_recorder import Extract, extract_judged_exchange
from aspire_guard.langgraph_compat import is_interrupt
from aspire_guard.review.item import Decision, ReviewItem, ReviewSource
from aspire_guard.routing.abstain import (
    VERDICT_KEY,
    AbstentionCheck,
    abstain,
    attach_verdict,
    write_abstention,
)
from aspire_guard.routing.budget import NO_TIME, BudgetTracker
from aspire_guard.routing.decision_log import Candidate, DecisionLog
from aspire_guard.routing.effects import (
    CallCustom,
    ChainRan,
    ClearMemory,
    Effect,
    EffectFailed,
    RequestReview,
    RunChain,
    RunFallback,
    ScoreExchange,
    request,
)
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.routing.review_items import make_review_candidate, make_review_metadata
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
    """The end of a flow.

    Attributes:
        output: the output that leaves the guard, in the type of the chain's output.
        verdict: the decision on it, or None if the output is a message that calls tools.
        abstention: the text of the abstention, or None if the output is not an abstention.
    """

    output: Any
    verdict: Verdict | None
    abstention: str | None = None


Flow = Generator[Effect[Any], Any, Outcome]
# A part of a flow. It returns None if the next route is to be tried.
_FlowPart = Generator[Effect[Any], Any, Outcome | None]


def answer_flow(
    input: Any,
    evaluator: Evaluator,
    policy: RoutingPolicy,
    *,
    metadata: Mapping[str, Any] | None = None,
    generated: ChainRan | None = None,
    extract: Extract = Exchange.from_run,
    abstention_check: AbstentionCheck | None = None,
    clock: Callable[[], float] = perf_counter,
) -> Flow:
    """Generate, score and decide, and try the policy's routes until one of them releases an answer or abstains.

    Args:
        input: the chain's input.
        evaluator: the evaluator that scores the answers.
        policy: the policy that chooses their routes.
        metadata: the metadata of the call's config, which names the group.
        generated: the result of the chain's run, or None to ask for that run.
        extract: reads the exchange from input, output and retrieved documents.
        abstention_check: looks at accepted outputs for a place for an abstention, or None to skip that.
        clock: returns a time in seconds that only grows, for the time limits.

    Raises:
        ExchangeError: no question or answer can be read from the chain's input and output.
        EvaluationError: scoring failed, and the policy says to raise then.
        PolicyError: the policy names a threshold that the evaluator does not have.
    """
    group = policy.find_group(metadata or {})
    limits = BudgetTracker(policy.budget, policy.timeouts, clock)
    log = DecisionLog(policy.resolve_bands(evaluator, group))
    # A chain may change its input in place, so the snapshot is taken before it runs.
    given = take_snapshot(input)
    flow = _AnswerFlow(
        input,
        given,
        evaluator,
        policy,
        group,
        metadata or {},
        generated,
        extract,
        abstention_check,
        limits,
        log,
    )
    return (yield from flow.run())


@dataclass(frozen=True)
class _AnswerFlow:
    """The flow of one answer: the chain, and then one route after another."""

    input: Any
    given: Any  # the snapshot of the input
    evaluator: Evaluator
    policy: RoutingPolicy
    group: str | None
    metadata: Mapping[str, Any]
    generated: ChainRan | None
    extract: Extract
    abstention_check: AbstentionCheck | None
    limits: BudgetTracker
    log: DecisionLog
    unjudged: list[ChainRan] = field(default_factory=list)  # the run whose answer is being judged

    def run(self) -> Flow:
        """Decide, and clear the chain's memories of all answers that do not leave."""
        try:
            outcome = yield from self._decide()
        except Exception as error:
            if not is_interrupt(error):
                yield from self._clear_memories(self.policy.abstention)
            raise
        if self.unjudged or any(candidate.run.memories for candidate in self.log.candidates):
            yield from self._clear_memories(self._read_released_text(outcome))
        return outcome

    def _decide(self) -> Flow:
        """Try the chain and the routes in turn, and abstain after the last one."""
        outcome = yield from self._try_chain()
        if outcome is not None:
            return outcome
        for route in self._choose_routes():
            outcome = yield from self._take_route(route)
            if outcome is not None:
                return outcome
        return self._abstain(Abstain(self.policy.abstention))

    def _try_chain(self) -> _FlowPart:
        try:
            chain_run = self.generated
            if chain_run is None:
                timeout = self.limits.limit_timeout(self.policy.timeouts.chain)
                chain_run = yield from request(RunChain(timeout))
        except Exception as error:
            if self.policy.on_chain_error == "raise" or is_interrupt(error):
                raise
            self.log.log_failure("chain", error)
            self.log.chain_error = error
            return None
        return (yield from self._judge_output(chain_run, "chain"))

    def _judge_output(
        self,
        run: ChainRan,
        source: Literal["chain", "fallback"],
        name: str | None = None,
        accept_from: float | None = None,
    ) -> _FlowPart:
        """Score the answer in a run's output, and release it if its score is high enough."""
        self.unjudged.append(run)
        exchange = extract_judged_exchange(self.extract, self.input, run.output, run.recorder)
        if exchange is None:
            self.unjudged.clear()
            # A message that calls tools is not an answer yet.
            return Outcome(run.output, verdict=None)
        if self._is_abstention(run, exchange):
            self.log.log_inner_abstention(source, run, exchange, name)
            self.unjudged.clear()
            return None
        result = yield from self._score_answer(exchange)
        if result.error is not None and self.policy.on_error == "raise":
            raise result.error
        candidate = self.log.log_answer(
            source, run, exchange, result, name=name, accept_from=accept_from
        )
        self.unjudged.clear()
        if self.log.bands.accepts(result.score, accept_from):
            return self._release(candidate, "accept" if candidate.is_from_chain else "fallback")
        return None

    def _is_abstention(self, run: ChainRan, exchange: Exchange) -> bool:
        """Tell whether a guard inside the chain gave the answer in place of an answer that it had rejected."""
        answer = find_answer(run.output)
        if isinstance(answer, AIMessage):
            verdict = answer.response_metadata.get(VERDICT_KEY)
            if isinstance(verdict, Mapping) and verdict.get("route") == "abstain":
                return True
        return run.recorder.is_abstention(exchange.answer)

    def _score_answer(self, exchange: Exchange) -> Generator[Effect[Any], Any, ScoringResult]:
        """Take the score that the answering model itself gave, or else ask the evaluator."""
        own_score = find_own_score(self.evaluator, exchange)
        if own_score is not None:
            return ScoringResult(own_score)
        if self.limits.is_out_of_time:
            return ScoringResult(error=RouteTimeoutError(NO_TIME))
        timeout = self.limits.limit_timeout(self.policy.timeouts.evaluator)
        return (yield from request(ScoreExchange(exchange, timeout)))

    def _choose_routes(self) -> Routes:
        """Return the routes for the chain's own answer. A chain that failed takes the routes of an unscored answer."""
        candidates = self.log.candidates
        score = candidates[0].score if candidates else None
        scoring_failed = bool(candidates) and score is None and not candidates[0].is_abstention
        if scoring_failed and self.policy.on_error == "abstain":
            return ()
        return self.log.bands.find_routes(score)

    def _take_route(self, route: Route) -> _FlowPart:
        if isinstance(route, Abstain):
            return self._abstain(route)
        if isinstance(route, Accept):
            return self._accept_best()
        if isinstance(route, Fallback):
            return (yield from self._fall_back(route))
        if isinstance(route, HumanReview):
            return (yield from self._review(route))
        return (yield from self._call_custom(route))

    def _accept_best(self) -> Outcome | None:
        best = self.log.best
        if best is None or best.score is None:
            return None
        return self._release(best, "accept")

    def _fall_back(self, route: Fallback) -> _FlowPart:
        refusal = self.limits.find_refusal(route)
        if refusal is not None:
            self.log.log_skip("fallback", refusal, name=route.label)
            return None
        self.limits.spend(route)
        timeout = self.limits.limit_timeout(route.timeout or self.policy.timeouts.fallback)
        effect = RunFallback(route, timeout, self.limits.seconds_left)
        reply = yield from request(effect)
        if isinstance(reply, ChainRan):
            try:
                judged = self._judge_output(reply, "fallback", route.label, route.accept_from)
                return (yield from judged)
            except ExchangeError as error:
                reply = EffectFailed(error, reply.seconds, reply.retries)
        self.log.log_failure(
            "fallback", reply.error, name=route.label, seconds=reply.seconds, retries=reply.retries
        )
        return None

    def _review(self, route: HumanReview) -> _FlowPart:
        """Have a person review the best answer. If that releases nothing, take the review's own next route."""
        outcome = yield from self._ask_reviewer(route)
        if outcome is None and route.otherwise is not None:
            return (yield from self._take_route(route.otherwise))
        return outcome

    def _ask_reviewer(self, route: HumanReview) -> _FlowPart:
        best = self.log.best
        if best is None:
            return None
        if self.limits.is_out_of_time:
            self.log.log_skip("human_review", NO_TIME)
            return None
        item = self._make_review_item(best, route)
        wait = None if route.wait is None else self.limits.limit_timeout(route.wait)
        effect = RequestReview(route.queue, item, wait, self.limits.seconds_left)
        reply = yield from request(effect)
        self.log.ticket = reply.ticket
        if isinstance(reply, EffectFailed):
            self.log.log_failure("human_review", reply.error, seconds=reply.seconds)
            return None
        self.log.log_step("human_review", reply.seconds)
        if reply.decision is None:
            return None
        return self._apply_decision(best, reply.decision)

    def _make_review_item(self, candidate: Candidate, route: HumanReview) -> ReviewItem:
        verdict = self.log.make_verdict(candidate, "human_review", released=False)
        return ReviewItem(
            question=candidate.exchange.question,
            context=candidate.exchange.context,
            answer=candidate.exchange.answer,
            reason=self.log.bands.explain(candidate.score, candidate.accept_from),
            group=self.group,
            metadata=make_review_metadata(route, self.input, self.metadata),
            threshold=verdict.threshold,
            score=candidate.score,
            candidates=tuple(map(make_review_candidate, self.log.answers)),
            sources=tuple(
                ReviewSource(text=text, name=name) for text, name in candidate.run.recorder.sources
            ),
            context_source=candidate.exchange.context_source,
            steps=verdict.steps,
        )

    def _apply_decision(self, candidate: Candidate, decision: Decision) -> Outcome | None:
        self.log.log_decision(decision)
        if decision.action == "reject":
            return None
        if decision.text is None:
            return self._release(candidate, "human_review")
        output = self._replace_answer(candidate, decision.text)
        verdict = self.log.make_verdict(candidate, "human_review", released=True)
        return Outcome(attach_verdict(output, verdict), verdict)

    def _call_custom(self, route: Custom) -> _FlowPart:
        if self.limits.is_out_of_time:
            self.log.log_skip("custom", NO_TIME)
            return None
        best = self.log.best
        best_output = None if best is None else best.output
        verdict_so_far = self.log.make_verdict(best, "custom", released=False)
        effect = CallCustom(route, best_output, verdict_so_far, self.limits.seconds_left)
        reply = yield from request(effect)
        if isinstance(reply, EffectFailed):
            self.log.log_failure("custom", reply.error, seconds=reply.seconds)
            return None
        self.log.log_step("custom", reply.seconds)
        # The best answer counts as released if the function hands it on unchanged.
        released = best is not None and find_answer(reply.output) == find_answer(best.output)
        self.log.released = best if released else None
        verdict = self.log.make_verdict(best, "custom", released=released)
        return Outcome(attach_verdict(reply.output, verdict), verdict)

    def _release(self, candidate: Candidate, route: RouteName) -> Outcome:
        """Release a candidate's output unchanged."""
        if self.abstention_check is not None and candidate.is_from_chain:
            answer = candidate.exchange.answer
            self.abstention_check.check(candidate.output, answer, self.policy)
        self.log.released = candidate
        verdict = self.log.make_verdict(
            candidate, route, released=True, accepted=candidate.is_from_chain
        )
        return Outcome(attach_verdict(self._clear_earlier_turns(candidate), verdict), verdict)

    def _clear_earlier_turns(self, candidate: Candidate) -> Any:
        """Return an output without the answers of earlier turns that its chain could not be made to forget."""
        if not candidate.run.memories:
            return candidate.output
        answer = candidate.exchange.answer
        earlier = set().union(*(memory.rejected for memory in candidate.run.memories)) - {answer}
        if not earlier:
            return candidate.output
        passages = (answer, *self._find_known_values(candidate).passages)
        known = KnownValues((self.given,), passages)
        message = self.policy.abstention
        clearing = Clearing(
            sorted(earlier), message, known, keeps_objects=True, clears_drafts=False
        )
        cleared = clearing.clear(candidate.output)
        return message if cleared is None else cleared

    def _abstain(self, route: Abstain) -> Outcome:
        if not self.log.candidates:
            assert self.log.chain_error is not None
            # There is no output whose type the abstention could take.
            raise self.log.chain_error
        verdict = self.log.make_verdict(self.log.best, "abstain", released=False)
        message, failure = write_abstention(route.message, verdict, self.policy.abstention)
        if failure is not None:
            verdict = self.log.make_verdict(self.log.best, "abstain", released=False, error=failure)
        output = self._replace_answer(self.log.candidates[0], message)
        return Outcome(attach_verdict(output, verdict), verdict, message)

    def _replace_answer(self, candidate: Candidate, message: str) -> Any:
        """Return the candidate's output with `message` in place of its answer."""
        rejected = candidate.exchange.answer
        output = abstain(candidate.output, message, rejected, self._find_known_values(candidate))
        try:
            remaining = self.extract(self.input, output, ()).answer
        except ExchangeError:  # nothing is left that could be read as an answer
            return output
        # A function given as answer= may still find the answer in parts of the output that are clean on their own.
        return message if remaining == rejected else output

    def _find_known_values(self, candidate: Candidate) -> KnownValues:
        run = candidate.run
        remembered = [memory.snapshot for memory in run.memories]
        return KnownValues((self.given, *remembered), run.recorder.retrieved_passages)

    def _clear_memories(self, message: str) -> Generator[Effect[Any], Any, None]:
        """Put `message` in the place of each answer that does not leave, in the memory of the chain that gave it."""
        known = KnownValues((self.given,))
        for candidate in self.log.candidates:
            run = candidate.run
            if run.memories and candidate is not self.log.released:
                answers = (candidate.exchange.answer,)
                yield from request(
                    ClearMemory(MemoryClearing(run.memories, answers, message, known))
                )
        for run in self.unjudged:
            if run.memories:
                # No answer could be read from the output. The messages of the turn go.
                yield from request(ClearMemory(MemoryClearing(run.memories, (), message, known)))

    def _read_released_text(self, outcome: Outcome) -> str:
        try:
            return self.extract(self.input, outcome.output, ()).answer
        except ExchangeError:
            return self.policy.abstention
