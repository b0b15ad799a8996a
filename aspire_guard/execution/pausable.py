"""LangChain's wrappers around a guard, in which an interrupt of a graph is not a failure.

LangChain's fallbacks and retries catch every `Exception`, interrupts included. So a guard inside
them returns an interrupt as its output, and the wrapper outside raises it again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from langchain_core.runnables import (
    Runnable,
    RunnableBinding,
    RunnableConfig,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.retry import RunnableRetry

from aspire_guard.langgraph_compat import is_interrupt

Configs = RunnableConfig | list[RunnableConfig] | None


class PausableRunnable(Runnable[Any, Any]):
    """A runnable whose wrappers let an interrupt pass, which pauses the graph around them."""

    def with_fallbacks(
        self, fallbacks: Sequence[Runnable[Any, Any]], **options: Any
    ) -> GuardWithFallbacks:
        """Add runnables to ask if this one raises. An interrupt is not a failure, and pauses the graph."""
        wrapper = super().with_fallbacks(fallbacks, **options)
        return _rebuild(
            GuardWithFallbacks, wrapper, runnable=_InterruptCatcher(bound=wrapper.runnable)
        )

    def with_retry(self, **options: Any) -> Runnable[Any, Any]:
        """Try again if the runnable raises. An interrupt is not a failure, and pauses the graph."""
        wrapper = super().with_retry(**options)
        assert isinstance(wrapper, RunnableRetry)
        return _rebuild(GuardWithRetry, wrapper, bound=_InterruptCatcher(bound=wrapper.bound))

    def bind(self, **kwargs: Any) -> Runnable[Any, Any]:
        """Bind keyword arguments to the chain."""
        return _rebuild(GuardBinding, super().bind(**kwargs))

    def with_config(
        self, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Runnable[Any, Any]:
        """Bind a config."""
        return _rebuild(GuardBinding, super().with_config(config, **kwargs))

    def with_listeners(self, **listeners: Any) -> Runnable[Any, Any]:
        """Bind functions that are called at the start, the end or an error of a run."""
        return _rebuild(GuardBinding, super().with_listeners(**listeners))

    def with_alisteners(self, **listeners: Any) -> Runnable[Any, Any]:
        """Bind async functions that are called at the start, the end or an error of a run."""
        return _rebuild(GuardBinding, super().with_alisteners(**listeners))

    def with_types(self, **types: Any) -> Runnable[Any, Any]:
        """Bind the types of the input and the output."""
        return _rebuild(GuardBinding, super().with_types(**types))


class GuardBinding(RunnableBinding[Any, Any], PausableRunnable):  # type: ignore[misc]
    """A guard with bound arguments or a bound config."""


class _InterruptRaiser(PausableRunnable):
    """A wrapper that raises the interrupts which the runnable inside it has returned."""

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Invoke the wrapper."""
        output = super().invoke(input, config, **kwargs)  # type: ignore[safe-super]
        return _raise_caught_interrupt(output)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Invoke the wrapper asynchronously."""
        return _raise_caught_interrupt(await super().ainvoke(input, config, **kwargs))

    def batch(
        self,
        inputs: list[Any],
        config: Configs = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Invoke the wrapper for each input. An interrupt is raised even with `return_exceptions`."""
        outputs = super().batch(inputs, config, return_exceptions=return_exceptions, **kwargs)
        return [_raise_caught_interrupt(output) for output in outputs]

    async def abatch(
        self,
        inputs: list[Any],
        config: Configs = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Invoke the wrapper asynchronously for each input."""
        outputs = await super().abatch(
            inputs, config, return_exceptions=return_exceptions, **kwargs
        )
        return [_raise_caught_interrupt(output) for output in outputs]

    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        """Stream from the wrapper."""
        for chunk in super().stream(input, config, **kwargs):
            yield _raise_caught_interrupt(chunk)

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """Stream asynchronously from the wrapper."""
        async for chunk in super().astream(input, config, **kwargs):
            yield _raise_caught_interrupt(chunk)


class GuardWithFallbacks(_InterruptRaiser, RunnableWithFallbacks[Any, Any]):
    """A guard with fallbacks for its failures. Other attributes, such as `judge`, are the guard's."""


class GuardWithRetry(_InterruptRaiser, RunnableRetry[Any, Any]):
    """A guard that is tried again if it fails. Other attributes, such as `judge`, are the guard's."""

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the guard."""
        return _get_bound_attribute(self, name)


@dataclass(frozen=True)
class _CaughtInterrupt:
    """An interrupt on its way past LangChain's `except Exception`."""

    interrupt: Exception


class _InterruptCatcher(RunnableBindingBase[Any, Any]):
    """A guard that returns an interrupt as its output."""

    def __getattr__(self, name: str) -> Any:
        return _get_bound_attribute(self, name)

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        try:
            return super().invoke(input, config, **kwargs)
        except Exception as error:
            return _catch_interrupt(error)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        try:
            return await super().ainvoke(input, config, **kwargs)
        except Exception as error:
            return _catch_interrupt(error)

    def batch(
        self,
        inputs: list[Any],
        config: Configs = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        try:
            return super().batch(inputs, config, return_exceptions=return_exceptions, **kwargs)
        except Exception as error:
            return [_catch_interrupt(error)] * len(inputs)

    async def abatch(
        self,
        inputs: list[Any],
        config: Configs = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        try:
            return await super().abatch(
                inputs, config, return_exceptions=return_exceptions, **kwargs
            )
        except Exception as error:
            return [_catch_interrupt(error)] * len(inputs)

    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        try:
            yield from super().stream(input, config, **kwargs)
        except Exception as error:
            yield _catch_interrupt(error)

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        try:
            async for chunk in super().astream(input, config, **kwargs):
                yield chunk
        except Exception as error:
            yield _catch_interrupt(error)


Wrapper = TypeVar("Wrapper", bound=Runnable[Any, Any])


def _rebuild(wrapper_type: Callable[..., Wrapper], wrapper: Any, **changes: Any) -> Wrapper:
    """Make an object of another class with the fields of one of LangChain's wrappers, but for the changes."""
    fields = {name: getattr(wrapper, name) for name in wrapper.model_fields_set}
    return wrapper_type(**{**fields, **changes})


def _get_bound_attribute(wrapper: Any, name: str) -> Any:
    # Copying and unpickling look names up before there is a bound runnable to ask.
    if name.startswith("_") or "bound" not in wrapper.__dict__:
        raise AttributeError(f"{type(wrapper).__name__!r} object has no attribute {name!r}")
    return getattr(wrapper.bound, name)


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
