"""The work behind each effect that a flow can ask for: runs, scores, reviews and custom routes."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any, Generic, TypeVar

from langchain_core.callbacks.manager import (
    AsyncCallbackManagerForChainRun,
    CallbackManagerForChainRun,
)
from langchain_core.runnables import Runnable, RunnableConfig

from aspire_guard.clearing import MemoryBefore, MemoryFinder
from aspire_guard.errors import ExchangeError, RouteTimeoutError
from aspire_guard.evaluators.protocol import Evaluator
from aspire_guard.exchange.run_recorder import RunRecorder
from aspire_guard.execution.chain_runs import ChainRuns
from aspire_guard.execution.isolation import isolate_ambient_config, make_child_config
from aspire_guard.execution.sanitized_errors import sanitize_chain_error, sanitize_error
from aspire_guard.langgraph_compat import is_interrupt, is_parent_command
from aspire_guard.routing.effects import (
    CallCustom,
    ChainRan,
    ClearMemory,
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

CHAIN_TAG = "aspire_guard:chain"
FALLBACK_TAG = "aspire_guard:fallback"

Run = TypeVar("Run", CallbackManagerForChainRun, AsyncCallbackManagerForChainRun)


class GuardedCall(Generic[Run]):
    """An input on its way through the guard.

    Attributes:
        input: the chain's input.
        config: the config that the guard was called with.
        run: the guard's run for this input.
        recorder: the record of the latest run of the chain or a fallback. `begin_child_run` sets it.
        step_config: the config of that run. `begin_child_run` sets it.
    """

    recorder: RunRecorder
    step_config: RunnableConfig

    def __init__(
        self, input: Any, config: RunnableConfig, run: Run, *, original_errors: bool = False
    ) -> None:
        """Prepare a call. With `original_errors` errors leave it as they are."""
        self.input = input
        self.config = config
        self.run: Run = run
        self._original_errors = original_errors
        self._has_begun = False
        # The error of the chain, and the error that may leave in its place.
        self._chain_error: tuple[Exception, Exception] | None = None

    def begin_child_run(self, tag: str) -> None:
        """Prepare a recorder and a config for the next run of the chain or a fallback."""
        self._has_begun = True
        self.recorder = RunRecorder()
        self.step_config = make_child_config(self.config, self.run, self.recorder, tag)

    @property
    def has_listeners(self) -> bool:
        """True if any callback handler listens to the guard's run."""
        return bool(self.run.handlers)

    def note_chain_error(self, raised: Exception, leaving: Exception) -> None:
        """Note an error of the chain, and the error that may leave the guard in its place."""
        self._chain_error = raised, leaving

    @contextmanager
    def watch_chain(self, chain: Runnable[Any, Any]) -> Iterator[None]:
        """Note an error that the chain raises in the block."""
        try:
            yield
        except Exception as error:
            if not self._original_errors:
                leaving = sanitize_chain_error(error, chain, self.recorder)
                self.note_chain_error(error, leaving)
            raise

    def sanitize(self, error: BaseException) -> BaseException:
        """Return what may leave the guard in place of an error; see `sanitize_error`.

        Before the chain has begun, any error may leave.
        """
        if self._chain_error is not None and error is self._chain_error[0]:
            return self._chain_error[1]
        is_kept = self._original_errors and not is_parent_command(error)
        return error if is_kept or not self._has_begun else sanitize_error(error)


def choose_ambient_config(calls: Sequence[GuardedCall[Any]]) -> RunnableConfig:
    """Choose the config that a step finds around it if it ignores the config that it is given.

    A step for a single call finds the call's own config. A step for several calls can't belong to
    any of them, and finds the config around the guard.
    """
    return calls[0].step_config if len(calls) == 1 else isolate_ambient_config()


@dataclass(frozen=True)
class EffectRunner:
    """The work for the flows of one call of the guard.

    The requests of a step are all of one type, and requests for fallbacks all name the same route.

    Attributes:
        chain: the guarded chain.
        kwargs: keyword arguments that are passed on to the chain.
        evaluator: the evaluator that scores the answers.
        memories: finds the memories of the chain and the fallbacks, or None if they are not to be looked for.
        original_errors: True if the chain's errors may leave the guard as they are.
    """

    chain: Runnable[Any, Any]
    kwargs: dict[str, Any]
    evaluator: Evaluator
    memories: MemoryFinder | None = None
    original_errors: bool = False

    def prepare_step(self, calls: Sequence[GuardedCall[Any]], requests: Sequence[Any]) -> None:
        """Prepare the calls for a step. A run of the chain or a fallback needs a recorder and a config."""
        if isinstance(requests[0], RunChain):
            tag = CHAIN_TAG
        elif isinstance(requests[0], RunFallback):
            tag = FALLBACK_TAG
        else:
            return
        for call in calls:
            call.begin_child_run(tag)

    def run(self, calls: list[GuardedCall[Any]], requests: list[Any]) -> list[Any]:
        """Do the work of a step.

        Args:
            calls: the calls that ask for it, prepared by `prepare_step`.
            requests: the effect that each call asks for.

        Returns:
            A result for each request, in their order. If a chain fails, its error is the result.
        """
        effect = requests[0]
        if isinstance(effect, RunChain):
            return self._run_chain(calls, requests)
        if isinstance(effect, RunFallback):
            return self._run_fallback(calls, requests)
        if isinstance(effect, ScoreExchange):
            return self._score(requests)
        if isinstance(effect, CallCustom):
            return self._call_custom(calls, requests)
        if isinstance(effect, ClearMemory):
            return [request.clearing.run() for request in requests]
        return self._request_review(_add_trace_ids(calls, requests))

    async def arun(self, calls: list[GuardedCall[Any]], requests: list[Any]) -> list[Any]:
        """Do the work of a step asynchronously; see `run`."""
        effect = requests[0]
        if isinstance(effect, RunChain):
            return await self._arun_chain(calls, requests)
        if isinstance(effect, RunFallback):
            return await self._arun_fallback(calls, requests)
        if isinstance(effect, ScoreExchange):
            return await self._ascore(requests)
        if isinstance(effect, CallCustom):
            return await self._acall_custom(calls, requests)
        if isinstance(effect, ClearMemory):
            return [await request.clearing.arun() for request in requests]
        return await self._arequest_review(_add_trace_ids(calls, requests))

    # RunChain

    def _run_chain(
        self, calls: list[GuardedCall[Any]], requests: list[RunChain]
    ) -> list[ChainRan | Exception]:
        started = perf_counter()
        runs = self._make_chain_runs(requests)
        memories = self._open_memories(runs.runnable, calls)
        outputs, retry_counts = runs.run(*_split_calls(calls))
        results = _make_run_results(calls, outputs, retry_counts, memories, started)
        return _unwrap_errors(calls, results)

    async def _arun_chain(
        self, calls: list[GuardedCall[Any]], requests: list[RunChain]
    ) -> list[ChainRan | Exception]:
        started = perf_counter()
        runs = self._make_chain_runs(requests)
        memories = await self._aopen_memories(runs.runnable, calls)
        outputs, retry_counts = await runs.arun(*_split_calls(calls))
        results = _make_run_results(calls, outputs, retry_counts, memories, started)
        return _unwrap_errors(calls, results)

    def _make_chain_runs(self, requests: list[RunChain]) -> ChainRuns:
        timeout = _find_shortest(request.timeout for request in requests)
        return ChainRuns(
            self.chain,
            "chain",
            self.kwargs,
            timeout=timeout,
            original_errors=self.original_errors,
        )

    # RunFallback

    def _run_fallback(
        self, calls: list[GuardedCall[Any]], requests: list[RunFallback]
    ) -> list[ChainRan | EffectFailed]:
        started = perf_counter()
        runs = _make_fallback_runs(requests)
        memories = self._open_memories(runs.runnable, calls)
        outputs, retry_counts = runs.run(*_split_calls(calls))
        return _make_run_results(calls, outputs, retry_counts, memories, started)

    async def _arun_fallback(
        self, calls: list[GuardedCall[Any]], requests: list[RunFallback]
    ) -> list[ChainRan | EffectFailed]:
        started = perf_counter()
        runs = _make_fallback_runs(requests)
        memories = await self._aopen_memories(runs.runnable, calls)
        outputs, retry_counts = await runs.arun(*_split_calls(calls))
        return _make_run_results(calls, outputs, retry_counts, memories, started)

    # The memories of the chain and the fallbacks

    def _open_memories(
        self, runnable: Runnable[Any, Any], calls: Sequence[GuardedCall[Any]]
    ) -> list[list[MemoryBefore]]:
        """Open the memories of a runnable before its runs, for each call."""
        if self.memories is None:
            return [[] for _ in calls]
        return [self.memories.open(runnable, call.step_config) for call in calls]

    async def _aopen_memories(
        self, runnable: Runnable[Any, Any], calls: Sequence[GuardedCall[Any]]
    ) -> list[list[MemoryBefore]]:
        if self.memories is None:
            return [[] for _ in calls]
        return [await self.memories.aopen(runnable, call.step_config) for call in calls]

    # ScoreExchange

    def _score(self, requests: list[ScoreExchange]) -> list[ScoringResult]:
        started = perf_counter()
        exchanges = [request.exchange for request in requests]
        timeout = _find_shortest(request.timeout for request in requests)
        score = partial(score_exchanges, self.evaluator, exchanges)
        try:
            return run_with_timeout(score, timeout, "evaluator")
        except RouteTimeoutError as error:
            return _fail_scoring(error, started, len(requests))

    async def _ascore(self, requests: list[ScoreExchange]) -> list[ScoringResult]:
        started = perf_counter()
        exchanges = [request.exchange for request in requests]
        timeout = _find_shortest(request.timeout for request in requests)
        score = partial(score_exchanges, self.evaluator, exchanges)
        try:
            if timeout is None:
                return await run_in_scoring_thread(score)
            return await run_in_thread(score, timeout, "evaluator")
        except RouteTimeoutError as error:
            return _fail_scoring(error, started, len(requests))

    # CallCustom

    def _call_custom(
        self, calls: list[GuardedCall[Any]], requests: list[CallCustom]
    ) -> list[CustomRan | EffectFailed]:
        return [
            _call_custom_function(call, request)
            for call, request in zip(calls, requests, strict=True)
        ]

    async def _acall_custom(
        self, calls: list[GuardedCall[Any]], requests: list[CallCustom]
    ) -> list[CustomRan | EffectFailed]:
        threads = [
            run_in_thread(partial(_call_custom_function, call, request), None, "custom route")
            for call, request in zip(calls, requests, strict=True)
        ]
        return await asyncio.gather(*threads)

    # RequestReview

    def _request_review(self, requests: list[RequestReview]) -> list[Reviewed | EffectFailed]:
        """Submit all items, then wait for all decisions together."""
        started = perf_counter()
        submitted = [_submit_item(request) for request in requests]
        return [
            _wait_for_decision(request, review, started)
            for request, review in zip(requests, submitted, strict=True)
        ]

    async def _arequest_review(
        self, requests: list[RequestReview]
    ) -> list[Reviewed | EffectFailed]:
        started = perf_counter()
        return await asyncio.gather(*(_areview_item(request, started) for request in requests))


def _split_calls(
    calls: Sequence[GuardedCall[Any]],
) -> tuple[list[Any], list[RunnableConfig], list[RunRecorder]]:
    """Return the arguments for `ChainRuns.run`: the inputs, the configs and the recorders."""
    inputs = [call.input for call in calls]
    configs = [call.step_config for call in calls]
    recorders = [call.recorder for call in calls]
    return inputs, configs, recorders


def _make_fallback_runs(requests: list[RunFallback]) -> ChainRuns:
    route = requests[0].route
    return ChainRuns(
        route.runnable,
        "fallback",
        timeout=_find_shortest(request.timeout for request in requests),
        retries=route.retries,
        within=_find_shortest(request.within for request in requests),
    )


def _make_run_results(
    calls: Sequence[GuardedCall[Any]],
    outputs: list[Any],
    retry_counts: list[int],
    memories: list[list[MemoryBefore]],
    started: float,
) -> list[ChainRan | EffectFailed]:
    """Make the result of each run. The time since `started` is shared evenly among the runs."""
    seconds = (perf_counter() - started) / len(calls)
    results: list[ChainRan | EffectFailed] = []
    runs = zip(calls, outputs, retry_counts, memories, strict=True)
    for call, output, retries, opened in runs:
        if isinstance(output, Exception):
            results.append(EffectFailed(output, seconds, retries))
        else:
            results.append(ChainRan(output, call.recorder, seconds, retries, opened))
    return results


def _unwrap_errors(
    calls: Sequence[GuardedCall[Any]], results: list[ChainRan | EffectFailed]
) -> list[ChainRan | Exception]:
    """Return the results with bare errors, since the error of a chain is thrown into its flow."""
    unwrapped: list[ChainRan | Exception] = []
    for call, result in zip(calls, results, strict=True):
        if isinstance(result, EffectFailed):
            call.note_chain_error(result.error, result.error)
            unwrapped.append(result.error)
        else:
            unwrapped.append(result)
    return unwrapped


def _fail_scoring(error: RouteTimeoutError, started: float, count: int) -> list[ScoringResult]:
    seconds = (perf_counter() - started) / count
    return [ScoringResult(error=error, seconds=seconds)] * count


def _call_custom_function(call: GuardedCall[Any], request: CallCustom) -> CustomRan | EffectFailed:
    started = perf_counter()
    work = partial(request.route.function, call.input, request.output, request.verdict)
    try:
        output = run_with_timeout(work, request.timeout, "custom route")
        if inspect.isawaitable(output):
            raise ExchangeError(
                "expected an output from the custom route's function, found an awaitable; make the function sync"
            )
    except Exception as error:
        return _make_failure(error, started)
    return CustomRan(output, perf_counter() - started)


def _add_trace_ids(
    calls: Sequence[GuardedCall[Any]], requests: Sequence[RequestReview]
) -> list[RequestReview]:
    """Return the requests with the id of the guard's run in each item."""
    traced: list[RequestReview] = []
    for call, request in zip(calls, requests, strict=True):
        item = request.item.model_copy(update={"trace_id": str(call.run.run_id)})
        traced.append(replace(request, item=item))
    return traced


async def _areview_item(request: RequestReview, started: float) -> Reviewed | EffectFailed:
    submitted = await run_in_thread(partial(_submit_item, request), None, "review queue")
    return await _await_decision(request, submitted, started)


def _submit_item(request: RequestReview) -> Reviewed | EffectFailed:
    started = perf_counter()
    submit = partial(request.queue.submit, request.item)
    try:
        ticket = run_with_timeout(submit, request.within, "review queue")
    except Exception as error:
        return _make_failure(error, started)
    return Reviewed(ticket.id, ticket.decision, perf_counter() - started)


def _wait_for_decision(
    request: RequestReview, submitted: Reviewed | EffectFailed, started: float
) -> Reviewed | EffectFailed:
    """Return the decision on a submitted item.

    The time to wait counts from `started` on, so the items of a batch are waited for together.
    """
    ticket = _get_open_ticket(request, submitted)
    if ticket is None:
        return submitted
    try:
        decision = request.queue.wait(ticket, _get_seconds_to_wait(request, started))
    except Exception as error:
        return _make_failure(error, started, ticket)
    return Reviewed(ticket, decision, perf_counter() - started)


async def _await_decision(
    request: RequestReview, submitted: Reviewed | EffectFailed, started: float
) -> Reviewed | EffectFailed:
    """Return the decision on a submitted item; see `_wait_for_decision`."""
    ticket = _get_open_ticket(request, submitted)
    if ticket is None:
        return submitted
    try:
        decision = await request.queue.await_(ticket, _get_seconds_to_wait(request, started))
    except Exception as error:
        return _make_failure(error, started, ticket)
    return Reviewed(ticket, decision, perf_counter() - started)


def _get_open_ticket(request: RequestReview, submitted: Reviewed | EffectFailed) -> str | None:
    """Return the ticket whose decision is to be waited for, or None if there is nothing to wait for."""
    if isinstance(submitted, EffectFailed):
        return None
    if submitted.decision is not None or request.wait is None:
        return None
    return submitted.ticket


def _get_seconds_to_wait(request: RequestReview, started: float) -> float:
    return max(0.0, (request.wait or 0.0) - (perf_counter() - started))


def _make_failure(error: Exception, started: float, ticket: str | None = None) -> EffectFailed:
    """Make the result of work that ended in an error. An interrupt of a graph is raised instead."""
    if is_interrupt(error):
        raise error
    return EffectFailed(error, perf_counter() - started, ticket=ticket)


def _find_shortest(limits: Iterable[float | None]) -> float | None:
    """Find the shortest time limit, or None if there is no limit."""
    return min((limit for limit in limits if limit is not None), default=None)
