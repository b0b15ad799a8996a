"""with_fallbacks for a guard: an interrupt of a graph is no failure, though LangChain's own class takes it for one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase

from aspire_guard.langgraph_compat import is_interrupt


@dataclass(frozen=True)
class _Paused:
    """An interrupt on its way past `except Exception`."""

    interrupt: Exception


class _Pausable(RunnableBindingBase[Any, Any]):
    """A guard that gives an interrupt as its output."""

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any | None) -> Any:
        try:
            return super().invoke(input, config, **kwargs)
        except Exception as error:
            return _paused(error)

    async def ainvoke(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any | None
    ) -> Any:
        try:
            return await super().ainvoke(input, config, **kwargs)
        except Exception as error:
            return _paused(error)

    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any | None
    ) -> Iterator[Any]:
        try:
            yield from super().stream(input, config, **kwargs)
        except Exception as error:
            yield _paused(error)

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any | None
    ) -> AsyncIterator[Any]:
        try:
            async for chunk in super().astream(input, config, **kwargs):
                yield chunk
        except Exception as error:
            yield _paused(error)


class GuardWithFallbacks(RunnableWithFallbacks[Any, Any]):
    """A guard and what is asked where it fails; an interrupt inside the guard pauses the graph as ever."""

    @classmethod
    def of(cls, guard: Any, fallbacks: RunnableWithFallbacks[Any, Any]) -> GuardWithFallbacks:
        """As `fallbacks`, which LangChain made for `guard`."""
        return cls(
            runnable=_Pausable(bound=guard),
            fallbacks=fallbacks.fallbacks,
            exceptions_to_handle=fallbacks.exceptions_to_handle,
            exception_key=fallbacks.exception_key,
        )

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any | None) -> Any:
        """As LangChain's."""
        return _raised(super().invoke(input, config, **kwargs))

    async def ainvoke(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any | None
    ) -> Any:
        """As LangChain's."""
        return _raised(await super().ainvoke(input, config, **kwargs))

    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any | None
    ) -> Iterator[Any]:
        """As LangChain's."""
        for chunk in super().stream(input, config, **kwargs):
            yield _raised(chunk)

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any | None
    ) -> AsyncIterator[Any]:
        """As LangChain's."""
        async for chunk in super().astream(input, config, **kwargs):
            yield _raised(chunk)


def _paused(error: Exception) -> _Paused:
    if is_interrupt(error):
        return _Paused(error)
    raise error


def _raised(output: Any) -> Any:
    if isinstance(output, _Paused):
        raise output.interrupt
    return output
