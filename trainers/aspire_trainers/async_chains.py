"""Chains that have a step with no other API than an async one, such as a tool of MCP, run from threads."""

from __future__ import annotations

import asyncio
from functools import cache
from threading import Thread
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig

# LangChain, LangGraph and tools say it in words of their own, but by one of these.
_REFUSALS = (TypeError, NotImplementedError)


class SyncOrAsync(Runnable[Any, Any]):
    """A chain with an `invoke` in any case: where its own refuses, its `ainvoke` is run, and from then on at once.

    It is not asked beforehand which of the two it has: only the steps inside it know, and some have no async one.
    """

    def __init__(self, chain: Runnable[Any, Any]) -> None:
        self.chain = chain
        self._loop = _event_loop()
        self._is_async = False

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """The chain's output; where both APIs refuse, the error of the first."""
        if self._is_async:
            return self._ainvoked(input, config, kwargs)
        try:
            return self.chain.invoke(input, config, **kwargs)
        except _REFUSALS as refusal:
            try:
                output = self._ainvoked(input, config, kwargs)
            except _REFUSALS:
                raise refusal from None
            self._is_async = True
            return output

    def _ainvoked(self, input: Any, config: RunnableConfig | None, kwargs: dict[str, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(self.chain.ainvoke(input, config, **kwargs), self._loop).result()


@cache
def _event_loop() -> asyncio.AbstractEventLoop:
    """One for all runs: a client inside a chain belongs to the event loop that it was first used in."""
    loop = asyncio.new_event_loop()
    Thread(target=loop.run_forever, name="async-chains", daemon=True).start()
    return loop
