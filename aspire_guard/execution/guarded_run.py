"""One call of the guard: the loops, sync and async, that drive the flows of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
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

from aspire_guard.evaluators.protocol import Evaluator
from aspire_guard.exchange import Exchange
from aspire_guard.exchange.run_recorder import Extract
from aspire_guard.execution.effect_runner import EffectRunner, GuardedCall
from aspire_guard.routing.batching import Batch, batch_flows
from aspire_guard.routing.effects import ChainRan
from aspire_guard.routing.flow import Flow, Outcome, answer_flow
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.timeouts import run_in_scoring_thread

VERDICT_EVENT = "aspire_guard.verdict"

Take = Callable[[Outcome], Any]


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
        extract: reads the exchange from input, output and retrieved documents.
        evaluator: the evaluator, where it is there already; it saves `arun` the thread that loads it.
    """

    chain: Runnable[Any, Any]
    load_evaluator: Callable[[], Evaluator]
    policy: RoutingPolicy
    name: str
    take: Take
    kwargs: dict[str, Any] = field(default_factory=dict)
    extract: Extract = Exchange.from_run
    evaluator: Evaluator | None = None

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
        calls = [
            await self._astart(input, config) for input, config in zip(inputs, configs, strict=True)
        ]
        try:
            outcomes = await self._adrive(calls)
        except BaseException as error:
            for call in calls:
                await call.run.on_chain_error(error)
            raise
        return [
            await self._afinish(call, outcome)
            for call, outcome in zip(calls, outcomes, strict=True)
        ]

    def decide(self, call: GuardedCall[CallbackManagerForChainRun], generated: ChainRan) -> Outcome:
        """What becomes of an output that the chain gave under `call` already; the call's run is left open."""
        with set_config_context(call.step_config) as context:
            return _raised(*context.run(self._drive, [call], generated))

    async def adecide(
        self, call: GuardedCall[AsyncCallbackManagerForChainRun], generated: ChainRan
    ) -> Outcome:
        """As `decide`; the evaluator works in a thread, off the event loop."""
        with set_config_context(call.step_config) as context:
            deciding = context.run(self._adrive, [call], generated)
            return _raised(*await coro_with_context(deciding, context, create_task=True))

    def _drive(
        self,
        calls: list[GuardedCall[CallbackManagerForChainRun]],
        generated: ChainRan | None = None,
    ) -> list[Outcome | Exception]:
        if not calls:
            return []
        work = EffectRunner(
            self.chain,
            self.kwargs,
            self.load_evaluator() if self.evaluator is None else self.evaluator,
        )
        flows = batch_flows([self._flow(call, work.evaluator, generated) for call in calls])
        with ExitStack() as entered:
            steps = _Steps(work, calls, flows, entered)
            asked = steps.next(None)
            while asked is not None:
                asked = steps.next(steps.context.run(work.run, *asked))
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
        work = EffectRunner(self.chain, self.kwargs, evaluator)
        flows = batch_flows([self._flow(call, work.evaluator, generated) for call in calls])
        with ExitStack() as entered:
            steps = _Steps(work, calls, flows, entered)
            asked = steps.next(None)
            while asked is not None:
                doing = steps.context.run(work.arun, *asked)
                asked = steps.next(await coro_with_context(doing, steps.context, create_task=True))
            return steps.outcomes

    def _flow(
        self, call: GuardedCall[Any], evaluator: Evaluator, generated: ChainRan | None
    ) -> Flow:
        return answer_flow(
            call.input,
            evaluator,
            self.policy,
            metadata=call.config.get("metadata", {}),
            generated=generated,
            extract=self.extract,
        )

    def _start(self, input: Any, config: RunnableConfig) -> GuardedCall[CallbackManagerForChainRun]:
        run_id, name = config.pop("run_id", None), config.get("run_name") or self.name
        run = get_callback_manager_for_config(config).on_chain_start(
            None, input, name=name, run_id=run_id
        )
        return GuardedCall(input, config, run)

    async def _astart(
        self, input: Any, config: RunnableConfig
    ) -> GuardedCall[AsyncCallbackManagerForChainRun]:
        run_id, name = config.pop("run_id", None), config.get("run_name") or self.name
        run = await get_async_callback_manager_for_config(config).on_chain_start(
            None, input, name=name, run_id=run_id
        )
        return GuardedCall(input, config, run)

    def _finish(
        self, call: GuardedCall[CallbackManagerForChainRun], outcome: Outcome | Exception
    ) -> Any:
        try:
            result = self._taken(outcome)
            if call.heard and isinstance(outcome, Outcome) and outcome.verdict is not None:
                verdict = outcome.verdict.model_dump(mode="json")
                call.run.get_child().on_custom_event(VERDICT_EVENT, verdict, run_id=call.run.run_id)
        except Exception as error:
            call.run.on_chain_error(error)
            return error
        call.run.on_chain_end(result)
        return result

    async def _afinish(
        self, call: GuardedCall[AsyncCallbackManagerForChainRun], outcome: Outcome | Exception
    ) -> Any:
        try:
            result = self._taken(outcome)
            if call.heard and isinstance(outcome, Outcome) and outcome.verdict is not None:
                verdict = outcome.verdict.model_dump(mode="json")
                await call.run.get_child().on_custom_event(
                    VERDICT_EVENT, verdict, run_id=call.run.run_id
                )
        except Exception as error:
            await call.run.on_chain_error(error)
            return error
        await call.run.on_chain_end(result)
        return result

    def _taken(self, outcome: Outcome | Exception) -> Any:
        return self.take(_raised(outcome))


class _Steps:
    """The flows of one call, led from step to step; `entered` leaves the last step's surroundings.

    Attributes:
        context: where the next step runs. What reads its result runs there too, so that it is shown as little.
        outcomes: of the flows, once they have ended.
    """

    def __init__(
        self,
        work: EffectRunner,
        calls: list[GuardedCall[Any]],
        flows: Generator[Batch, list[Any], list[Outcome | Exception]],
        entered: ExitStack,
    ) -> None:
        self.context = copy_context()
        self.outcomes: list[Outcome | Exception] = []
        self._work, self._calls, self._flows, self._entered = work, calls, flows, entered
        self._surroundings: RunnableConfig | None = None

    def next(self, results: list[Any] | None) -> tuple[list[GuardedCall[Any]], list[Any]] | None:
        """Whose requests are next, and which, given the results of the last ones; None at the end."""
        try:
            asked = (
                next(self._flows)
                if results is None
                else self.context.run(self._flows.send, results)
            )
        except StopIteration as stop:
            self.outcomes = list(stop.value)
            return None
        calls = [self._calls[place] for place in asked.flows]
        surroundings = self._work.surroundings(calls, asked.requests)
        if surroundings is not self._surroundings:
            self._entered.close()
            self._surroundings = surroundings
            self.context = self._entered.enter_context(set_config_context(surroundings))
        return calls, asked.requests


def _raised(outcome: Outcome | Exception) -> Outcome:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
