"""One call of the guard: the loops, sync and async, that do the work which the flows ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Generic, TypeVar

from langchain_core.callbacks import adispatch_custom_event, dispatch_custom_event
from langchain_core.callbacks.manager import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import (
    get_async_callback_manager_for_config,
    get_callback_manager_for_config,
    patch_config,
    run_in_executor,
    set_config_context,
)
from langchain_core.runnables.utils import coro_with_context

from aspire_guard.chain_callbacks import ChainWatch, silent_surroundings, watched
from aspire_guard.evaluators.protocol import Evaluator
from aspire_guard.routing.evaluation import evaluate
from aspire_guard.routing.flow import Generate, Generated, Outcome, Round, answer_flow, together
from aspire_guard.routing.policy import RoutingPolicy

VERDICT_EVENT = "aspire_guard.verdict"

Run = TypeVar("Run", CallbackManagerForChainRun, AsyncCallbackManagerForChainRun)
Take = Callable[[Outcome], Any]


class _Call(Generic[Run]):
    """One input on its way, with the guard's run for it and the config that the chain runs under."""

    def __init__(self, input: Any, config: RunnableConfig, run: Run) -> None:
        self.input = input
        self.run: Run = run
        self.watch = ChainWatch()
        self.chain_config = watched(config, run, self.watch)
        self.event_config = patch_config(config, callbacks=run.get_child())


@dataclass(frozen=True)
class GuardedRun:
    """Runs a chain over inputs under guard.

    Attributes:
        chain: what answers.
        load_evaluator: gives the evaluator; may take long when first called.
        policy: what becomes of scored answers.
        name: the name of the guard's runs where the config has none.
        take: what is handed out of an outcome; may raise.
        kwargs: passed on to the chain.
    """

    chain: Runnable[Any, Any]
    load_evaluator: Callable[[], Evaluator]
    policy: RoutingPolicy
    name: str
    take: Take
    kwargs: dict[str, Any] = field(default_factory=dict)

    def run(self, inputs: Sequence[Any], configs: Sequence[RunnableConfig]) -> list[Any]:
        """For each input what `take` hands out, or the exception in its place; configs are used up."""
        calls = [self._start(input, config) for input, config in zip(inputs, configs, strict=True)]
        try:
            outcomes = self._drive(calls)
        except BaseException as error:
            for call in calls:
                call.run.on_chain_error(error)
            raise
        return [self._finish(call, outcome) for call, outcome in zip(calls, outcomes, strict=True)]

    async def arun(self, inputs: Sequence[Any], configs: Sequence[RunnableConfig]) -> list[Any]:
        """As `run`; the evaluator works in a thread, off the event loop."""
        calls = [await self._astart(input, config) for input, config in zip(inputs, configs, strict=True)]
        try:
            outcomes = await self._adrive(calls)
        except BaseException as error:
            for call in calls:
                await call.run.on_chain_error(error)
            raise
        return [await self._afinish(call, outcome) for call, outcome in zip(calls, outcomes, strict=True)]

    def _drive(self, calls: list[_Call[CallbackManagerForChainRun]]) -> list[Outcome | Exception]:
        if not calls:
            return []
        evaluator = self.load_evaluator()
        work = together([answer_flow(call.input, evaluator, self.policy) for call in calls])
        asked: Round = next(work)
        while True:
            asking = [calls[place] for place in asked.flows]
            with set_config_context(_surroundings(asking)) as context:
                if isinstance(asked.requests[0], Generate):
                    started = perf_counter()
                    results: list[Any] = _generated(asking, context.run(self._generate, asking), started)
                else:
                    results = context.run(evaluate, evaluator, [request.exchange for request in asked.requests])
            try:
                asked = work.send(results)
            except StopIteration as stop:
                return list(stop.value)

    async def _adrive(self, calls: list[_Call[AsyncCallbackManagerForChainRun]]) -> list[Outcome | Exception]:
        if not calls:
            return []
        evaluator = await run_in_executor(None, self.load_evaluator)
        work = together([answer_flow(call.input, evaluator, self.policy) for call in calls])
        asked: Round = next(work)
        while True:
            asking = [calls[place] for place in asked.flows]
            with set_config_context(_surroundings(asking)) as context:
                if isinstance(asked.requests[0], Generate):
                    started = perf_counter()
                    outputs = await coro_with_context(context.run(self._agenerate, asking), context, create_task=True)
                    results: list[Any] = _generated(asking, outputs, started)
                else:
                    exchanges = [request.exchange for request in asked.requests]
                    # A copy: after a cancellation the thread may still be inside its context.
                    results = await run_in_executor(None, context.copy().run, evaluate, evaluator, exchanges)
            try:
                asked = work.send(results)
            except StopIteration as stop:
                return list(stop.value)

    def _generate(self, calls: list[_Call[CallbackManagerForChainRun]]) -> list[Any]:
        if len(calls) > 1:
            inputs, configs = _batched(calls)
            return self.chain.batch(inputs, configs, return_exceptions=True, **self.kwargs)
        try:
            return [self.chain.invoke(calls[0].input, calls[0].chain_config, **self.kwargs)]
        except Exception as error:
            return [error]

    async def _agenerate(self, calls: list[_Call[AsyncCallbackManagerForChainRun]]) -> list[Any]:
        if len(calls) > 1:
            inputs, configs = _batched(calls)
            return await self.chain.abatch(inputs, configs, return_exceptions=True, **self.kwargs)
        try:
            return [await self.chain.ainvoke(calls[0].input, calls[0].chain_config, **self.kwargs)]
        except Exception as error:
            return [error]

    def _start(self, input: Any, config: RunnableConfig) -> _Call[CallbackManagerForChainRun]:
        run_id, name = config.pop("run_id", None), config.get("run_name") or self.name
        run = get_callback_manager_for_config(config).on_chain_start(None, input, name=name, run_id=run_id)
        return _Call(input, config, run)

    async def _astart(self, input: Any, config: RunnableConfig) -> _Call[AsyncCallbackManagerForChainRun]:
        run_id, name = config.pop("run_id", None), config.get("run_name") or self.name
        run = await get_async_callback_manager_for_config(config).on_chain_start(None, input, name=name, run_id=run_id)
        return _Call(input, config, run)

    def _finish(self, call: _Call[CallbackManagerForChainRun], outcome: Outcome | Exception) -> Any:
        try:
            result = self._taken(outcome)
            if isinstance(outcome, Outcome) and outcome.verdict is not None:
                dispatch_custom_event(VERDICT_EVENT, outcome.verdict.model_dump(mode="json"), config=call.event_config)
        except Exception as error:
            call.run.on_chain_error(error)
            return error
        call.run.on_chain_end(result)
        return result

    async def _afinish(self, call: _Call[AsyncCallbackManagerForChainRun], outcome: Outcome | Exception) -> Any:
        try:
            result = self._taken(outcome)
            if isinstance(outcome, Outcome) and outcome.verdict is not None:
                verdict = outcome.verdict.model_dump(mode="json")
                await adispatch_custom_event(VERDICT_EVENT, verdict, config=call.event_config)
        except Exception as error:
            await call.run.on_chain_error(error)
            return error
        await call.run.on_chain_end(result)
        return result

    def _taken(self, outcome: Outcome | Exception) -> Any:
        if isinstance(outcome, Exception):
            raise outcome
        return self.take(outcome)


def _batched(calls: Sequence[_Call[Any]]) -> tuple[list[Any], list[RunnableConfig]]:
    return [call.input for call in calls], [call.chain_config for call in calls]


def _generated(calls: Sequence[_Call[Any]], outputs: Sequence[Any], started: float) -> list[Generated | Exception]:
    seconds = (perf_counter() - started) / len(calls)
    return [
        output if isinstance(output, Exception) else Generated(output, call.watch, seconds)
        for call, output in zip(calls, outputs, strict=True)
    ]


def _surroundings(calls: Sequence[_Call[Any]]) -> RunnableConfig:
    """What a step finds that ignores the config it is given: its call's own, or, of many calls, none of theirs."""
    return calls[0].chain_config if len(calls) == 1 else silent_surroundings()
