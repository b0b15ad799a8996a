"""Runs of a chain or a fallback over one or many inputs, with time limits and retries.

Each input gets a result, or an error in its place. Graph interrupts are not errors: they are raised
at once. Commands for the parent graph are errors.
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
from aspire_guard.execution.sanitized_errors import sanitize_chain_error, sanitize_error
from aspire_guard.langgraph_compat import is_interrupt, is_parent_command
from aspire_guard.timeouts import arun_with_timeout, run_with_timeout

# The pauses between tries, in seconds. They double from the first up to the longest, plus a random part.
_FIRST_PAUSE = 0.1
_RANDOM_PAUSE = 0.1
_LONGEST_PAUSE = 10.0


@dataclass(frozen=True)
class ChainRuns:
    """A runnable with the limits that hold for its runs.

    Attributes:
        runnable: the chain or the fallback to run.
        name: its name in errors about time.
        kwargs: keyword arguments that are passed on to it.
        timeout: seconds for one try of one input, or None for no limit. With a limit each input
            runs separately.
        retries: further tries after an error.
        within: seconds for all tries, or None for no limit.
        original_errors: True to keep the runnable's errors, which may quote an answer.
        permanent_errors: kinds of errors that are not tried again, beside those that say so themselves.
    """

    runnable: Runnable[Any, Any]
    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    timeout: float | None = None
    retries: int = 0
    within: float | None = None
    original_errors: bool = False
    permanent_errors: tuple[type[Exception], ...] = ()

    def run(
        self,
        inputs: Sequence[Any],
        configs: Sequence[RunnableConfig],
        recorders: Sequence[RunRecorder] = (),
    ) -> tuple[list[Any], list[int]]:
        """Run the inputs, and retry the inputs that fail.

        Args:
            inputs: at least one input.
            configs: a config for each input.
            recorders: a recorder for each input, among its config's callbacks, or no recorders. A
                recorder is cleared before each try.

        Returns:
            The output or the last error of each input, and the number of its retries.
        """
        tries = _Tries(self, inputs, configs, recorders)

        def try_once() -> bool:
            return tries.finish(self._run_once(*tries.begin()))

        if self.retries:
            from tenacity import Retrying

            Retrying(**tries.make_retry_options())(try_once)
        else:
            try_once()
        return tries.results, tries.retry_counts

    async def arun(
        self,
        inputs: Sequence[Any],
        configs: Sequence[RunnableConfig],
        recorders: Sequence[RunRecorder] = (),
    ) -> tuple[list[Any], list[int]]:
        """Run the inputs asynchronously; see `run`."""
        tries = _Tries(self, inputs, configs, recorders)

        async def try_once() -> bool:
            return tries.finish(await self._arun_once(*tries.begin()))

        if self.retries:
            from tenacity import AsyncRetrying

            await AsyncRetrying(**tries.make_retry_options())(try_once)
        else:
            await try_once()
        return tries.results, tries.retry_counts

    def _run_once(
        self, inputs: list[Any], configs: list[RunnableConfig], timeout: float | None
    ) -> list[Any]:
        if len(inputs) == 1:
            return [self._run_input(timeout, inputs[0], configs[0])]
        if timeout is None:
            return self.runnable.batch(inputs, configs, return_exceptions=True, **self.kwargs)
        with get_executor_for_config(configs[0]) as executor:
            return list(executor.map(partial(self._run_input, timeout), inputs, configs))

    async def _arun_once(
        self, inputs: list[Any], configs: list[RunnableConfig], timeout: float | None
    ) -> list[Any]:
        if len(inputs) == 1:
            return [await self._arun_input(timeout, inputs[0], configs[0])]
        if timeout is None:
            return await self.runnable.abatch(
                inputs, configs, return_exceptions=True, **self.kwargs
            )
        runs = [
            self._arun_input(timeout, input, config)
            for input, config in zip(inputs, configs, strict=True)
        ]
        return list(await gather_with_concurrency(configs[0].get("max_concurrency"), *runs))

    def _run_input(self, timeout: float | None, input: Any, config: RunnableConfig) -> Any:
        """Return the output, or the error in its place."""
        work = partial(self.runnable.invoke, input, config, **self.kwargs)
        try:
            return run_with_timeout(work, timeout, self.name)
        except Exception as error:
            return error

    async def _arun_input(self, timeout: float | None, input: Any, config: RunnableConfig) -> Any:
        """Return the output, or the error in its place.

        A sync step inside the runnable runs in the event loop's executor, and keeps its thread there
        when the time is over. Nothing outside a sequence can tell which of its steps are sync, so
        these steps can't be given threads of their own.
        """
        try:
            return await arun_with_timeout(self._ainvoke(input, config), timeout, self.name)
        except Exception as error:
            return error

    async def _ainvoke(self, input: Any, config: RunnableConfig) -> Any:
        # A time limit needs a coroutine, and a runnable's `ainvoke` may return any awaitable.
        return await self.runnable.ainvoke(input, config, **self.kwargs)


class _Tries:
    """The tries of a list of inputs: first of all inputs, then of those that failed.

    Attributes:
        results: the output or the last error of each input.
        retry_counts: how often each input was tried again.
    """

    def __init__(
        self,
        runs: ChainRuns,
        inputs: Sequence[Any],
        configs: Sequence[RunnableConfig],
        recorders: Sequence[RunRecorder],
    ) -> None:
        self._runs = runs
        self._inputs = inputs
        self._configs = configs
        self._recorders = recorders
        self._open = list(range(len(inputs)))  # the indices of the inputs to try next
        self._started = perf_counter()
        self.results: list[Any] = [None] * len(inputs)
        self.retry_counts = [-1] * len(inputs)

    def make_retry_options(self) -> dict[str, Any]:
        """Make tenacity's options: when to try again, and how long to pause before."""
        from tenacity import (
            retry_if_result,
            stop_after_attempt,
            stop_before_delay,
            wait_exponential,
            wait_random,
        )

        stop: Any = stop_after_attempt(self._runs.retries + 1)
        if self._runs.within is not None:
            stop = stop | stop_before_delay(self._runs.within)
        growing_pause = wait_exponential(multiplier=_FIRST_PAUSE, max=_LONGEST_PAUSE)
        return {
            "retry": retry_if_result(bool),
            "stop": stop,
            "wait": growing_pause + wait_random(0, _RANDOM_PAUSE),
            "retry_error_callback": lambda state: None,
        }

    def begin(self) -> tuple[list[Any], list[RunnableConfig], float | None]:
        """Begin the next try.

        Returns:
            The inputs to try, their configs, and the time limit of each input in seconds.
        """
        if self._recorders:
            for index in self._open:
                self._recorders[index].clear()
        inputs = [self._inputs[index] for index in self._open]
        configs = [self._configs[index] for index in self._open]
        return inputs, configs, self._get_time_limit()

    def finish(self, results: list[Any]) -> bool:
        """Store the results of the inputs that were tried, and tell whether to try any of them again.

        Raises:
            Exception: a graph interrupt among the results.
        """
        results = [
            self._sanitize(index, result) for index, result in zip(self._open, results, strict=True)
        ]
        for result in results:
            if isinstance(result, BaseException) and is_interrupt(result):
                raise result
        failed = []
        for index, result in zip(self._open, results, strict=True):
            self.results[index] = result
            self.retry_counts[index] += 1
            if _is_retryable(result) and not isinstance(result, self._runs.permanent_errors):
                failed.append(index)
        self._open = failed
        return bool(failed)

    def _sanitize(self, index: int, result: Any) -> Any:
        if not isinstance(result, Exception):
            return result
        if self._runs.original_errors:
            return sanitize_error(result) if is_parent_command(result) else result
        recorder = self._recorders[index] if self._recorders else None
        return sanitize_chain_error(result, self._runs.runnable, recorder)

    def _get_time_limit(self) -> float | None:
        timeout, within = self._runs.timeout, self._runs.within
        if timeout is None or within is None:
            return timeout
        seconds_left = within - (perf_counter() - self._started)
        return min(timeout, max(0.0, seconds_left))


def _is_retryable(result: Any) -> bool:
    return isinstance(result, Exception) and getattr(result, "retryable", True) is not False
