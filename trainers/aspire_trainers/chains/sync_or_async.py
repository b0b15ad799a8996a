"""Chains that have a step with no other API than an async one, such as a tool of MCP, run from threads."""

from __future__ import annotations

import asyncio
from functools import cache
from threading import Thread
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig


class AsyncAloneError(Exception):
    """A chain's sync API refused; from now on its async one is used."""

    retryable = False


class SyncOrAsync(Runnable[Any, Any]):
    """A chain that is run by its async API once its sync one has refused.

    It is not asked beforehand which of the two it has: only the steps inside it know, and some have no async one.
    """

    def __init__(self, chain: Runnable[Any, Any]) -> None:
        self.chain = chain
        self._loop = _event_loop()
        self._is_async = False

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """The chain's output.

        Raises:
            AsyncAloneError: the sync API refuses; the run, of which some steps may have been done, is to be made anew.
        """
        if self._is_async:
            return self._ainvoked(input, config, kwargs)
        try:
            return self.chain.invoke(input, config, **kwargs)
        except (TypeError, NotImplementedError) as error:
            # Without a sync API LangChain's functions and LangGraph's nodes raise a TypeError that says so, tools and
            # models a NotImplementedError. Any other TypeError is a mistake of the chain's own.
            if isinstance(error, TypeError) and "sync" not in str(error):
                raise
            self._is_async = True
            raise AsyncAloneError(str(error)) from error

    def _ainvoked(self, input: Any, config: RunnableConfig | None, kwargs: dict[str, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(
            self.chain.ainvoke(input, config, **kwargs), self._loop
        ).result()


@cache
def _event_loop() -> asyncio.AbstractEventLoop:
    """One for all runs: a client inside a chain belongs to the event loop that it was first used in."""
    loop = asyncio.new_event_loop()
    Thread(target=loop.run_forever, name="async-chains", daemon=True).start()
    return loop
