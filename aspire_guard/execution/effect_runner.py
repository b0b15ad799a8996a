"""The work that flows ask for, done for many calls at once: runs, scores, reviews, custom routes."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, Generic, TypeVar

from langchain_core.callbacks.manager import (
    AsyncCallbackManagerForChainRun,
    CallbackManagerForChainRun,
)
from langchain_core.runnables import Runnable, RunnableConfig

from aspire_guard.errors import ExchangeError, RouteTimeoutError
from aspire_guard.evaluators.protocol import Evaluator
from aspire_guard.exchange.run_recorder import RunRecorder
from aspire_guard.execution.chain_runs import ChainRuns
from aspire_guard.execution.isolation import child_config, isolated_ambient_config
from aspire_guard.langgraph_compat import is_interrupt
from aspire_guard.routing.effects import (
    CallCustom,
    ChainRan,
    CustomRan,
    EffectFailed,
    RequestReview,
    Reviewed,
    RunChain,
    RunFallback,
    ScoreExchange,
)
from aspire_guard.routing.scoring import ScoringResult, score_exchanges
from aspire_guard.timeouts import run_in_scoring_thread, run_in_thread, run_with_timeout

Run = TypeVar("Run", CallbackManagerForChainRun, AsyncCallbackManagerForChainRun)


class GuardedCall(Generic[Run]):
    """One input on its way, with the guard's run for it and the config that its steps run under."""

    def __init__(self, input: Any, config: RunnableConfig, run: Run) -> None:
        self.input, self.config = input, config
        self.run: Run = run

    def inside(self, tag: str) -> None:
        """Have the next run watched, as a child of the guard's."""
        self.watch = RunRecorder()
        self.step_config = child_config(self.config, self.run, self.watch, tag)

    @property
    def heard(self) -> bool:
        """Whether anyone listens to the guard's run."""
        return bool(self.run.handlers)


@dataclass(frozen=True)
class EffectRunner:
    """Does what the flows of one call of the guard ask for.

    Attributes:
        chain: what answers.
        kwargs: passed on to it.
        evaluator: what scores.
    """

    chain: Runnable[Any, Any]
    kwargs: dict[str, Any]
    evaluator: Evaluator

    def run(self, calls: list[GuardedCall[Any]], requests: list[Any]) -> list[Any]:
        """One result for each request, in order; all requests are of one kind, and fallbacks all the same one."""
        asked, started = requests[0], perf_counter()
        if isinstance(asked, RunChain | RunFallback):
            results, again = self._runs(requests).run(*_batched(calls))
            return _generated(calls, asked, results, again, started)
        if isinstance(asked, ScoreExchange):
            score, limit = _scoring(self.evaluator, requests)
            return _scored(partial(run_with_timeout, score, limit, "evaluator"), requests)
        if isinstance(asked, CallCustom):
            return [_applied(call, request) for call, request in zip(calls, requests, strict=True)]
        tickets = [_submitted(request) for request in requests]
        return [
            _waited(ticket, request, started)
            for ticket, request in zip(tickets, requests, strict=True)
        ]

    async def arun(self, calls: list[GuardedCall[Any]], requests: list[Any]) -> list[Any]:
        """As `do`."""
        asked, started = requests[0], perf_counter()
        if isinstance(asked, RunChain | RunFallback):
            results, again = await self._runs(requests).arun(*_batched(calls))
            return _generated(calls, asked, results, again, started)
        if isinstance(asked, ScoreExchange):
            score, limit = _scoring(self.evaluator, requests)
            return await _ascored(score, limit, requests)
        if isinstance(asked, CallCustom):
            each = zip(calls, requests, strict=True)
            return await asyncio.gather(
                *(run_in_thread(partial(_applied, *one), None, "custom route") for one in each)
            )
        return await asyncio.gather(*(_asked(request, started) for request in requests))

    def _runs(self, requests: list[Any]) -> ChainRuns:
        """How the runnable is run that the requests ask for: the chain, or their fallback."""
        asked, limit = requests[0], _least(request.timeout for request in requests)
        if isinstance(asked, RunChain):
            return ChainRuns(self.chain, "chain", self.kwargs, timeout=limit)
        within = _least(request.within for request in requests)
        return ChainRuns(
            asked.route.runnable,
            "fallback",
            timeout=limit,
            retries=asked.route.retries,
            within=within,
        )

    def surroundings(
        self, calls: Sequence[GuardedCall[Any]], requests: Sequence[Any]
    ) -> RunnableConfig:
        """What a step finds that ignores the config it is given: its call's own, or, of many calls, none of theirs."""
        if isinstance(requests[0], RunChain | RunFallback):
            tag = (
                "aspire_guard:chain"
                if isinstance(requests[0], RunChain)
                else "aspire_guard:fallback"
            )
            for call in calls:
                call.inside(tag)
        return calls[0].step_config if len(calls) == 1 else isolated_ambient_config()


def _batched(
    calls: Sequence[GuardedCall[Any]],
) -> tuple[list[Any], list[RunnableConfig], list[RunRecorder]]:
    return (
        [call.input for call in calls],
        [call.step_config for call in calls],
        [call.watch for call in calls],
    )


def _generated(
    calls: Sequence[GuardedCall[Any]],
    asked: RunChain | RunFallback,
    outputs: list[Any],
    again: list[int],
    started: float,
) -> list[Any]:
    """What the flows hear: of the chain an output or its error, of a fallback an output or what failed."""
    seconds = (perf_counter() - started) / len(calls)
    heard: list[Any] = []
    for call, output, retries in zip(calls, outputs, again, strict=True):
        if not isinstance(output, Exception):
            heard.append(ChainRan(output, call.watch, seconds, retries))
        else:
            heard.append(
                output if isinstance(asked, RunChain) else EffectFailed(output, seconds, retries)
            )
    return heard


def _scoring(
    evaluator: Evaluator, requests: list[ScoreExchange]
) -> tuple[Callable[[], list[ScoringResult]], float | None]:
    exchanges = [request.exchange for request in requests]
    return partial(score_exchanges, evaluator, exchanges), _least(
        request.timeout for request in requests
    )


def _scored(
    score: Callable[[], list[ScoringResult]], requests: list[ScoreExchange]
) -> list[ScoringResult]:
    started = perf_counter()
    try:
        return score()
    except RouteTimeoutError as error:
        return [
            ScoringResult(error=error, seconds=(perf_counter() - started) / len(requests))
        ] * len(requests)


async def _ascored(
    score: Callable[[], list[ScoringResult]], limit: float | None, requests: list[ScoreExchange]
) -> list[ScoringResult]:
    started = perf_counter()
    try:
        if limit is None:
            return await run_in_scoring_thread(score)
        return await run_in_thread(score, limit, "evaluator")
    except RouteTimeoutError as error:
        return [
            ScoringResult(error=error, seconds=(perf_counter() - started) / len(requests))
        ] * len(requests)


def _applied(call: GuardedCall[Any], request: CallCustom) -> CustomRan | EffectFailed:
    started = perf_counter()
    try:
        work = partial(request.route.function, call.input, request.output, request.verdict)
        output = run_with_timeout(work, request.timeout, "custom route")
        if inspect.isawaitable(output):
            raise ExchangeError(
                "expected an output from the custom route's function, found an awaitable; make it no async"
            )
    except Exception as error:
        return _failed(error, started)
    return CustomRan(output, perf_counter() - started)


def _submitted(request: RequestReview) -> Reviewed | EffectFailed:
    started = perf_counter()
    try:
        ticket = run_with_timeout(
            partial(request.queue.submit, request.item), request.within, "review queue"
        )
    except Exception as error:
        return _failed(error, started)
    return Reviewed(ticket.id, ticket.decision, perf_counter() - started)


def _waited(
    submitted: Reviewed | EffectFailed, request: RequestReview, started: float
) -> Reviewed | EffectFailed:
    """The decision on what was submitted; those of a batch are waited for together, from `started` on."""
    if not _is_open(submitted, request):
        return submitted
    assert isinstance(submitted, Reviewed)
    assert submitted.ticket is not None
    try:
        decision = request.queue.wait(submitted.ticket, _rest(request, started))
    except Exception as error:
        return _failed(error, started, submitted.ticket)
    return Reviewed(submitted.ticket, decision, perf_counter() - started)


async def _asked(request: RequestReview, started: float) -> Reviewed | EffectFailed:
    submitted = await run_in_thread(partial(_submitted, request), None, "review queue")
    if not _is_open(submitted, request):
        return submitted
    assert isinstance(submitted, Reviewed)
    assert submitted.ticket is not None
    try:
        decision = await request.queue.await_(submitted.ticket, _rest(request, started))
    except Exception as error:
        return _failed(error, started, submitted.ticket)
    return Reviewed(submitted.ticket, decision, perf_counter() - started)


def _is_open(submitted: Reviewed | EffectFailed, request: RequestReview) -> bool:
    return (
        isinstance(submitted, Reviewed) and submitted.decision is None and request.wait is not None
    )


def _rest(request: RequestReview, started: float) -> float:
    return max(0.0, (request.wait or 0.0) - (perf_counter() - started))


def _failed(error: Exception, started: float, ticket: str | None = None) -> EffectFailed:
    if is_interrupt(error):
        raise error
    return EffectFailed(error, perf_counter() - started, ticket=ticket)


def _least(limits: Any) -> float | None:
    return min((limit for limit in limits if limit is not None), default=None)
