"""Runs of a chain or a fallback over one or many inputs, each with a result or an error, within time and with retries.

Graph interrupts are no errors: they are raised at once. Commands for the parent graph are errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import get_executor_for_config
from langchain_core.runnables.utils import gather_with_concurrency

from aspire_guard.exchange.run_recorder import RunRecorder
from aspire_guard.execution.sanitized_errors import sanitize_error
from aspire_guard.langgraph_compat import is_interrupt
from aspire_guard.timeouts import arun_with_timeout, run_with_timeout

# Pauses between tries, in seconds: they double from the first, with some chance added, up to the longest.
_FIRST_PAUSE, _CHANCE, _LONGEST_PAUSE = 0.1, 0.1, 10.0


@dataclass(frozen=True)
class ChainRuns:
    """How a runnable is run.

    Attributes:
        runnable: what is run.
        who: what it is called in errors about time.
        kwargs: passed on to it.
        timeout: seconds for one try of one input; None for no limit. With a limit each input runs by itself.
        retries: further tries after an error.
        within: seconds for all tries; None for no limit.
    """

    runnable: Runnable[Any, Any]
    who: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    timeout: float | None = None
    retries: int = 0
    within: float | None = None

    def run(
        self,
        inputs: Sequence[Any],
        configs: Sequence[RunnableConfig],
        watches: Sequence[RunRecorder] = (),
    ) -> tuple[list[Any], list[int]]:
        """For each input the output or the last error in its place, and how often it was tried again.

        Args:
            inputs: at least one.
            configs: one for each.
            watches: one for each, among its config's callbacks, or none; after a failed try it forgets what it saw.
        """
        tries = _Tries(self, inputs, configs, watches)
        if self.retries:
            from tenacity import Retrying

            Retrying(**tries.terms)(lambda: tries.keep(self._once(*tries.next())))
        else:
            tries.keep(self._once(*tries.next()))
        return tries.results, tries.again

    async def arun(
        self,
        inputs: Sequence[Any],
        configs: Sequence[RunnableConfig],
        watches: Sequence[RunRecorder] = (),
    ) -> tuple[list[Any], list[int]]:
        """As `run`."""
        tries = _Tries(self, inputs, configs, watches)

        async def once() -> bool:
            return tries.keep(await self._aonce(*tries.next()))

        if self.retries:
            from tenacity import AsyncRetrying

            await AsyncRetrying(**tries.terms)(once)
        else:
            await once()
        return tries.results, tries.again

    def _once(
        self, inputs: list[Any], configs: list[RunnableConfig], timeout: float | None
    ) -> list[Any]:
        if len(inputs) == 1:
            return [self._one(timeout, inputs[0], configs[0])]
        if timeout is None:
            return self.runnable.batch(inputs, configs, return_exceptions=True, **self.kwargs)
        with get_executor_for_config(configs[0]) as executor:
            return list(executor.map(partial(self._one, timeout), inputs, configs))

    async def _aonce(
        self, inputs: list[Any], configs: list[RunnableConfig], timeout: float | None
    ) -> list[Any]:
        if len(inputs) == 1:
            return [await self._aone(timeout, inputs[0], configs[0])]
        if timeout is None:
            return await self.runnable.abatch(
                inputs, configs, return_exceptions=True, **self.kwargs
            )
        runs = [
            self._aone(timeout, input, config)
            for input, config in zip(inputs, configs, strict=True)
        ]
        return list(await gather_with_concurrency(configs[0].get("max_concurrency"), *runs))

    def _one(self, timeout: float | None, input: Any, config: RunnableConfig) -> Any:
        try:
            return run_with_timeout(
                lambda: self.runnable.invoke(input, config, **self.kwargs), timeout, self.who
            )
        except Exception as error:
            return error

    async def _aone(self, timeout: float | None, input: Any, config: RunnableConfig) -> Any:
        # What is sync inside runs in the event loop's executor and keeps its thread there when the time is over: of a
        # sequence it can't be told which steps are, so they can't be given threads of their own.
        try:
            return await arun_with_timeout(
                _coroutine(self.runnable, input, config, self.kwargs), timeout, self.who
            )
        except Exception as error:
            return error


class _Tries:
    """What is still to be tried: all inputs at first, then those whose error may pass."""

    def __init__(
        self,
        runs: ChainRuns,
        inputs: Sequence[Any],
        configs: Sequence[RunnableConfig],
        watches: Sequence[RunRecorder],
    ) -> None:
        self.runs, self.inputs, self.configs, self.watches = runs, inputs, configs, watches
        self.results: list[Any] = [None] * len(inputs)
        self.again = [-1] * len(inputs)
        self.open = list(range(len(inputs)))
        self.started = perf_counter()

    @property
    def terms(self) -> dict[str, Any]:
        """For tenacity: when it is tried again, and how long after."""
        from tenacity import (
            retry_if_result,
            stop_after_attempt,
            stop_before_delay,
            wait_exponential,
            wait_random,
        )

        stop: Any = stop_after_attempt(self.runs.retries + 1)
        if self.runs.within is not None:
            stop = stop | stop_before_delay(self.runs.within)
        pause = wait_exponential(multiplier=_FIRST_PAUSE, max=_LONGEST_PAUSE) + wait_random(
            0, _CHANCE
        )
        return {
            "retry": retry_if_result(bool),
            "stop": stop,
            "wait": pause,
            "retry_error_callback": lambda state: None,
        }

    def next(self) -> tuple[list[Any], list[RunnableConfig], float | None]:
        """Inputs, configs and the time limit of the next try."""
        for place in self.open if self.watches else ():
            self.watches[place].forget()
        limit = self.runs.timeout
        if limit is not None and self.runs.within is not None:
            limit = min(limit, max(0.0, self.runs.within - (perf_counter() - self.started)))
        return (
            [self.inputs[place] for place in self.open],
            [self.configs[place] for place in self.open],
            limit,
        )

    def keep(self, results: list[Any]) -> bool:
        """Take the results of a try; whether another one may help."""
        results = [
            sanitize_error(result) if isinstance(result, Exception) else result
            for result in results
        ]
        for result in results:
            if isinstance(result, BaseException) and is_interrupt(result):
                raise result
        for place, result in zip(self.open, results, strict=True):
            self.results[place] = result
            self.again[place] += 1
        self.open = [
            place for place, result in zip(self.open, results, strict=True) if _may_pass(result)
        ]
        return bool(self.open)


def _may_pass(result: Any) -> bool:
    return isinstance(result, Exception) and getattr(result, "retryable", True) is not False


async def _coroutine(
    runnable: Runnable[Any, Any], input: Any, config: RunnableConfig, kwargs: dict[str, Any]
) -> Any:
    return await runnable.ainvoke(input, config, **kwargs)
