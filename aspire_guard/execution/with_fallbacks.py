"""`with_fallbacks` for a guard, in which an interrupt of a graph is not a failure."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase

from aspire_guard.langgraph_compat import is_interrupt


class GuardWithFallbacks(RunnableWithFallbacks[Any, Any]):
    """A guard with fallbacks for its failures. An interrupt inside the guard still pauses the graph.

    LangChain's class catches every `Exception`, interrupts included. So the guard returns an
    interrupt as its output, and this class raises it again.
    """

    @classmethod
    def from_langchain(
        cls, guard: Any, fallbacks: RunnableWithFallbacks[Any, Any]
    ) -> GuardWithFallbacks:
        """Make the equivalent of `fallbacks`, which LangChain made for `guard`."""
        return cls(
            runnable=_InterruptCatcher(bound=guard),
            fallbacks=fallbacks.fallbacks,
            exceptions_to_handle=fallbacks.exceptions_to_handle,
            exception_key=fallbacks.exception_key,
        )

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any | None) -> Any:
        """Invoke the guard, or a fallback if it fails."""
        return _raise_caught_interrupt(super().invoke(input, config, **kwargs))

    async def ainvoke(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any | None
    ) -> Any:
        """Invoke the guard asynchronously, or a fallback if it fails."""
        return _raise_caught_interrupt(await super().ainvoke(input, config, **kwargs))

    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any | None
    ) -> Iterator[Any]:
        """Stream from the guard, or from a fallback if it fails."""
        for chunk in super().stream(input, config, **kwargs):
            yield _raise_caught_interrupt(chunk)

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any | None
    ) -> AsyncIterator[Any]:
        """Stream asynchronously from the guard, or from a fallback if it fails."""
        async for chunk in super().astream(input, config, **kwargs):
            yield _raise_caught_interrupt(chunk)


@dataclass(frozen=True)
class _CaughtInterrupt:
    """An interrupt on its way past LangChain's `except Exception`."""

    interrupt: Exception


class _InterruptCatcher(RunnableBindingBase[Any, Any]):
    """A guard that returns an interrupt as its output."""

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any | None) -> Any:
        try:
            return super().invoke(input, config, **kwargs)
        except Exception as error:
            return _catch_interrupt(error)

    async def ainvoke(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any | None
    ) -> Any:
        try:
            return await super().ainvoke(input, config, **kwargs)
        except Exception as error:
            return _catch_interrupt(error)

    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any | None
    ) -> Iterator[Any]:
        try:
            yield from super().stream(input, config, **kwargs)
        except Exception as error:
            yield _catch_interrupt(error)

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any | None
    ) -> AsyncIterator[Any]:
        try:
            async for chunk in super().astream(input, config, **kwargs):
                yield chunk
        except Exception as error:
            yield _catch_interrupt(error)


def _catch_interrupt(error: Exception) -> _CaughtInterrupt:
    """Wrap an interrupt, and raise any other error again."""
    if is_interrupt(error):
        return _CaughtInterrupt(error)
    raise error


def _raise_caught_interrupt(output: Any) -> Any:
    """Raise the interrupt that an output holds, or return the output."""
    if isinstance(output, _CaughtInterrupt):
        raise output.interrupt
    return output
