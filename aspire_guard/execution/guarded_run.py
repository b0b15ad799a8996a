"""A call of the guard: the loops, sync and async, that drive the flows of its inputs."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Generator,
    Iterator,
    Sequence,
)
from contextlib import ExitStack
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any

from langchain_core.callbacks.manager import (
    AsyncCallbackManagerForChainRun,
    CallbackManagerForChainRun,
)
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import (
    get_async_callback_manager_for_config,
    get_callback_manager_for_config,
    set_config_context,
)
from langchain_core.runnables.utils import coro_with_context

from aspire_guard.clearing import MemoryFinder
from aspire_guard.evaluators.protocol import Evaluator
from aspire_guard.exchange import Exchange
from aspire_guard.exchange.run_recorder import Extract, RunRecorder
from aspire_guard.execution.effect_runner import EffectRunner, GuardedCall, choose_ambient_config
from aspire_guard.routing.abstain import AbstentionCheck
from aspire_guard.routing.batching import Batch, batch_flows
from aspire_guard.routing.effects import ChainRan
from aspire_guard.routing.flow import Flow, Outcome, answer_flow
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.timeouts import run_in_scoring_thread

VERDICT_EVENT = "aspire_guard.verdict"

SelectResult = Callable[[Outcome], Any]


@dataclass(frozen=True)
class GuardedRun:
    """A chain to run under guard.

    Attributes:
        chain: the guarded chain.
        load_evaluator: returns the evaluator. Its first call may take long.
        policy: what happens to scored answers.
        name: the name of the guard's runs if the config has no name.
        select_result: returns the part of an outcome that the caller wants. It may raise.
        kwargs: keyword arguments that are passed on to the chain.
        extract: reads the exchange from input, output and retrieved documents.
        evaluator: the evaluator, if it is loaded already. It saves `arun` the thread for loading.
        abstention_check: looks at accepted outputs for a place for an abstention, or None to skip that.
        memories: finds the memories of the chain and the fallbacks, or None if they are not to be looked for.
        original_errors: True if the chain's errors leave as they are, even if they may quote an answer.
    """

    chain: Runnable[Any, Any]
    load_evaluator: Callable[[], Evaluator]
    policy: RoutingPolicy
    name: str
    select_result: SelectResult
    kwargs: dict[str, Any] = field(default_factory=dict)
    extract: Extract = Exchange.from_run
    evaluator: Evaluator | None = None
    abstention_check: AbstentionCheck | None = None
    memories: MemoryFinder | None = None
    original_errors: bool = False

    def run(self, inputs: Sequence[Any], configs: Sequence[RunnableConfig]) -> list[Any]:
        """Run the chain over the inputs, and score and route its answers.

        Args:
            inputs: the chain's inputs.
            configs: a config for each input. Their run ids are removed from them.

        Returns:
            The selected result of each input, or the exception in its place.
        """
        calls = [self._start(input, config) for input, config in zip(inputs, configs, strict=True)]
        failure: BaseException | None = None
        try:
            outcomes = self._drive(calls)
        except BaseException as error:
            failure = _sanitize_for_all(calls, error)
        # Raised out here, an error does not have the original as its context.
        if failure is not None:
            for call in calls:
                call.run.on_chain_error(failure)
            raise failure
        return [self._finish(call, outcome) for call, outcome in zip(calls, outcomes, strict=True)]

    async def arun(self, inputs: Sequence[Any], configs: Sequence[RunnableConfig]) -> list[Any]:
        """Run asynchronously, with the evaluator in a thread off the event loop; see `run`."""
        calls = [
            await self._astart(input, config) for input, config in zip(inputs, configs, strict=True)
        ]
        failure: BaseException | None = None
        try:
            outcomes = await self._adrive(calls)
        except BaseException as error:
            failure = _sanitize_for_all(calls, error)
        if failure is not None:
            for call in calls:
                await call.run.on_chain_error(failure)
            raise failure
        return [
            await self._afinish(call, outcome)
            for call, outcome in zip(calls, outcomes, strict=True)
        ]

    def stream(self, input: Any, config: RunnableConfig) -> Iterator[Any]:
        """Run the chain over one input, and yield the selected result while the guard's run is open.

        Streams of events report only what is yielded until the run ends.
        """
        call = self._start(input, config)
        result: Any = None
        failure: BaseException | None = None
        try:
            (outcome,) = self._drive([call])
            result = self._select_result(call, outcome)
            pieces = iter([result])
            for handler in find_stream_handlers(call.run):
                pieces = handler.tap_output_iter(call.run.run_id, pieces)
            yield from pieces
        except GeneratorExit:  # the caller has the result, and does not wait for the end
            call.run.on_chain_end(result)
            raise
        except BaseException as error:
            failure = call.sanitize(error)
        # Raised out here, an error does not have the original as its context.
        if failure is not None:
            call.run.on_chain_error(failure)
            raise failure
        call.run.on_chain_end(result)

    async def astream(self, input: Any, config: RunnableConfig) -> AsyncGenerator[Any, None]:
        """Stream asynchronously, with the evaluator in a thread off the event loop; see `stream`."""
        call = await self._astart(input, config)
        result: Any = None
        failure: BaseException | None = None
        try:
            (outcome,) = await self._adrive([call])
            result = await self._aselect_result(call, outcome)
            pieces = _yield_once(result)
            for handler in find_stream_handlers(call.run):
                pieces = handler.tap_output_aiter(call.run.run_id, pieces)
            async for piece in pieces:
                yield piece
        except GeneratorExit:
            await call.run.on_chain_end(result)
            raise
        except BaseException as error:
            failure = call.sanitize(error)
        if failure is not None:
            await call.run.on_chain_error(failure)
            raise failure
        await call.run.on_chain_end(result)

    def decide(self, call: GuardedCall[CallbackManagerForChainRun], generated: ChainRan) -> Outcome:
        """Score and route an output that the chain has given already.

        Args:
            call: the call that the chain ran for. Its run stays open.
            generated: the chain's output.
        """
        with set_config_context(call.step_config) as context:
            (outcome,) = context.run(self._drive, [call], generated)
        return _raise_if_error(outcome)

    async def adecide(
        self, call: GuardedCall[AsyncCallbackManagerForChainRun], generated: ChainRan
    ) -> Outcome:
        """Decide asynchronously, with the evaluator in a thread off the event loop; see `decide`."""
        with set_config_context(call.step_config) as context:
            driving = context.run(self._adrive, [call], generated)
            (outcome,) = await coro_with_context(driving, context, create_task=True)
        return _raise_if_error(outcome)

    def _drive(
        self,
        calls: list[GuardedCall[CallbackManagerForChainRun]],
        generated: ChainRan | None = None,
    ) -> list[Outcome | Exception]:
        """Do what the flows of all calls ask for until each has an outcome or an error."""
        if not calls:
            return []
        evaluator = self.load_evaluator() if self.evaluator is None else self.evaluator
        runner = EffectRunner(
            self.chain, self.kwargs, evaluator, self.memories, self.original_errors
        )
        flows = batch_flows([self._make_flow(call, evaluator, generated) for call in calls])
        with ExitStack() as open_context:
            steps = _Steps(runner, calls, flows, open_context)
            step = steps.start()
            while step is not None:
                results = steps.context.run(runner.run, step.calls, step.requests)
                step = steps.resume(results)
            return steps.outcomes

    async def _adrive(
        self,
        calls: list[GuardedCall[AsyncCallbackManagerForChainRun]],
        generated: ChainRan | None = None,
    ) -> list[Outcome | Exception]:
        if not calls:
            return []
        evaluator = self.evaluator
        if evaluator is None:
            evaluator = await run_in_scoring_thread(self.load_evaluator)
        runner = EffectRunner(
            self.chain, self.kwargs, evaluator, self.memories, self.original_errors
        )
        flows = batch_flows([self._make_flow(call, evaluator, generated) for call in calls])
        with ExitStack() as open_context:
            steps = _Steps(runner, calls, flows, open_context)
            step = steps.start()
            while step is not None:
                running = steps.context.run(runner.arun, step.calls, step.requests)
                results = await coro_with_context(running, steps.context, create_task=True)
                step = steps.resume(results)
            return steps.outcomes

    def _make_flow(
        self, call: GuardedCall[Any], evaluator: Evaluator, generated: ChainRan | None
    ) -> Flow:
        return answer_flow(
            call.input,
            evaluator,
            self.policy,
            metadata=call.config.get("metadata", {}),
            generated=generated,
            extract=self.extract,
            abstention_check=self.abstention_check,
        )

    def _start(self, input: Any, config: RunnableConfig) -> GuardedCall[CallbackManagerForChainRun]:
        run_id, name = config.pop("run_id", None), config.get("run_name") or self.name
        manager = get_callback_manager_for_config(config)
        run = manager.on_chain_start(None, input, name=name, run_id=run_id)
        return GuardedCall(input, config, run, original_errors=self.original_errors)

    async def _astart(
        self, input: Any, config: RunnableConfig
    ) -> GuardedCall[AsyncCallbackManagerForChainRun]:
        run_id, name = config.pop("run_id", None), config.get("run_name") or self.name
        manager = get_async_callback_manager_for_config(config)
        run = await manager.on_chain_start(None, input, name=name, run_id=run_id)
        return GuardedCall(input, config, run, original_errors=self.original_errors)

    def _finish(
        self, call: GuardedCall[CallbackManagerForChainRun], outcome: Outcome | Exception
    ) -> Any:
        """End the run of a call, and return its result or its error."""
        failure: BaseException | None = None
        try:
            result = self._select_result(call, outcome)
        except Exception as error:
            failure = call.sanitize(error)
        if failure is not None:
            call.run.on_chain_error(failure)
            return failure
        call.run.on_chain_end(result)
        return result

    async def _afinish(
        self, call: GuardedCall[AsyncCallbackManagerForChainRun], outcome: Outcome | Exception
    ) -> Any:
        failure: BaseException | None = None
        try:
            result = await self._aselect_result(call, outcome)
        except Exception as error:
            failure = call.sanitize(error)
        if failure is not None:
            await call.run.on_chain_error(failure)
            return failure
        await call.run.on_chain_end(result)
        return result

    def _select_result(
        self, call: GuardedCall[CallbackManagerForChainRun], outcome: Outcome | Exception
    ) -> Any:
        """Report the verdict of a call, and return its result or raise its error."""
        decided = _raise_if_error(outcome)
        _tell_outer_guards(call, decided)
        result = self.select_result(decided)
        if decided.verdict is not None and call.has_listeners:
            verdict = decided.verdict.model_dump(mode="json")
            call.run.get_child().on_custom_event(VERDICT_EVENT, verdict, run_id=call.run.run_id)
        return result

    async def _aselect_result(
        self, call: GuardedCall[AsyncCallbackManagerForChainRun], outcome: Outcome | Exception
    ) -> Any:
        decided = _raise_if_error(outcome)
        _tell_outer_guards(call, decided)
        result = self.select_result(decided)
        if decided.verdict is not None and call.has_listeners:
            verdict = decided.verdict.model_dump(mode="json")
            child = call.run.get_child()
            await child.on_custom_event(VERDICT_EVENT, verdict, run_id=call.run.run_id)
        return result


@dataclass(frozen=True)
class _Step:
    """The requests that are answered next, and the calls that they come from."""

    calls: list[GuardedCall[Any]]
    requests: list[Any]


class _Steps:
    """The flows of a call of the guard, from step to step.

    Attributes:
        context: the context that the next step runs in. A flow reads the step's results in the same
            context, so that the functions that read an answer show it to no stream either.
        outcomes: the outcome or the error of each flow, after the last step.
    """

    def __init__(
        self,
        runner: EffectRunner,
        calls: list[GuardedCall[Any]],
        flows: Generator[Batch, list[Any], list[Outcome | Exception]],
        open_context: ExitStack,
    ) -> None:
        """Prepare the steps. Closing `open_context` leaves the context of the last step."""
        self.context = copy_context()
        self.outcomes: list[Outcome | Exception] = []
        self._runner = runner
        self._calls = calls
        self._flows = flows
        self._open_context = open_context
        self._ambient_config: RunnableConfig | None = None

    def start(self) -> _Step | None:
        """Start the flows and return the first step, or None if they have ended already."""
        return self._advance(self._flows.__next__)

    def resume(self, results: list[Any]) -> _Step | None:
        """Give the flows the results of the last step and return the next, or None at the end."""
        return self._advance(lambda: self.context.run(self._flows.send, results))

    def _advance(self, get_batch: Callable[[], Batch]) -> _Step | None:
        try:
            batch = get_batch()
        except StopIteration as stop:
            self.outcomes = list(stop.value)
            return None
        calls = [self._calls[index] for index in batch.flows]
        self._runner.prepare_step(calls, batch.requests)
        self._enter_context(choose_ambient_config(calls))
        return _Step(calls, batch.requests)

    def _enter_context(self, ambient_config: RunnableConfig) -> None:
        """Make this the ambient config of the next step. The same config keeps the same context."""
        if ambient_config is self._ambient_config:
            return
        self._open_context.close()
        self._ambient_config = ambient_config
        self.context = self._open_context.enter_context(set_config_context(ambient_config))


def find_stream_handlers(
    run: CallbackManagerForChainRun | AsyncCallbackManagerForChainRun,
) -> list[Any]:
    """Find the handlers that are shown the chunks of a run, as LangChain's own runnables do."""
    return [handler for handler in run.handlers if hasattr(handler, "tap_output_iter")]


async def _yield_once(result: Any) -> AsyncIterator[Any]:
    yield result


def _sanitize_for_all(calls: Sequence[GuardedCall[Any]], error: BaseException) -> BaseException:
    """Return what may leave in place of an error that ends several calls at once."""
    for call in calls:
        sanitized = call.sanitize(error)
        if sanitized is not error:
            return sanitized
    return error


def _tell_outer_guards(call: GuardedCall[Any], outcome: Outcome) -> None:
    """Tell the guards around this one that the output is an abstention, which they must not take for an answer."""
    if outcome.abstention is None:
        return
    for handler in call.run.handlers:
        if isinstance(handler, RunRecorder):
            handler.record_abstention(outcome.abstention)


def _raise_if_error(outcome: Outcome | Exception) -> Outcome:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
