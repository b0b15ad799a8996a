"""Chains with a step that has only an async API, such as a tool of MCP, run from threads."""

from __future__ import annotations

import asyncio
from functools import cache
from threading import Thread
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig


class AsyncOnlyError(Exception):
    """A chain's sync API refused to run. From now on its async API is used."""

    retryable = False


class SyncOrAsync(Runnable[Any, Any]):
    """A chain that is run by its async API once its sync API has refused.

    Only the steps inside a chain know which of the two they have, and some have no async API. So the chain is tried
    rather than inspected.
    """

    def __init__(self, chain: Runnable[Any, Any]) -> None:
        self.chain = chain
        self._loop = _start_event_loop()
        self._is_async = False

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Return the chain's output.

        Raises:
            AsyncOnlyError: the sync API refuses. Some steps of the run may have been done, so it must be repeated.
        """
        if self._is_async:
            return self._invoke_async(input, config, kwargs)
        try:
            return self.chain.invoke(input, config, **kwargs)
        except (TypeError, NotImplementedError) as error:
            # Without a sync API LangChain's functions and LangGraph's nodes raise a TypeError that says so, tools and
            # models a NotImplementedError. Any other TypeError is a mistake of the chain's own.
            if isinstance(error, TypeError) and "sync" not in str(error):
                raise
            self._is_async = True
            raise AsyncOnlyError(str(error)) from error

    def _invoke_async(
        self, input: Any, config: RunnableConfig | None, kwargs: dict[str, Any]
    ) -> Any:
        output = self.chain.ainvoke(input, config, **kwargs)
        return asyncio.run_coroutine_threadsafe(output, self._loop).result()


@cache
def _start_event_loop() -> asyncio.AbstractEventLoop:
    """Start one event loop for all runs, since a client inside a chain belongs to the loop that first used it."""
    loop = asyncio.new_event_loop()
    Thread(target=loop.run_forever, name="async-chains", daemon=True).start()
    return loop
