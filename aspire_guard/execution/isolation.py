"""The config that a guarded chain runs under: hidden from streams and graphs, recorded by the guard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackHandler,
    BaseCallbackHandler,
    BaseCallbackManager,
)
from langchain_core.callbacks.manager import AsyncParentRunManager, ParentRunManager
from langchain_core.runnables.config import (
    RunnableConfig,
    ensure_config,
    get_callback_manager_for_config,
    patch_config,
)
from langchain_core.tracers import context
from langchain_core.tracers.base import AsyncBaseTracer, BaseTracer

from aspire_guard.exchange.run_recorder import RunRecorder
from aspire_guard.langgraph_compat import isolate_from_graph

try:
    from langchain_core.tracers import _streaming
except ImportError:  # private to langchain-core, so it may move
    _streaming = None  # type: ignore[assignment]

# The handlers that feed astream_events, astream_log, stream_events and LangGraph's "messages" mode.
_STREAMING_HANDLERS: tuple[type, ...] = tuple(
    getattr(_streaming, name)
    for name in ("_StreamingCallbackHandler", "_V2StreamingCallbackHandler")
    if hasattr(_streaming, name)
)

# Handlers that show a run to a reader while it goes on: those of LangChain, by name, and those of
# libraries for pages, by the library.
_PAGE_HANDLERS = {
    "StreamingStdOutCallbackHandler",
    "FinalStreamingStdOutCallbackHandler",
    "AsyncIteratorCallbackHandler",
    "AsyncFinalIteratorCallbackHandler",
    "StreamlitCallbackHandler",
}
_PAGE_LIBRARIES = {"streamlit", "chainlit", "gradio", "panel"}

# The methods that receive an answer piece by piece.
_TOKEN_METHODS = ("on_llm_new_token", "on_stream_event")


def make_child_config(
    config: RunnableConfig,
    run: ParentRunManager | AsyncParentRunManager,
    recorder: RunRecorder,
    tag: str,
) -> RunnableConfig:
    """Make the config for a run of the chain or a fallback inside the guard's run.

    The recorder sees the run, and no stream does.

    Args:
        config: the config that the guard was called with.
        run: the guard's run, the parent of the run to come.
        recorder: the recorder of the run to come.
        tag: the tag of the run to come in a trace.
    """
    callbacks: BaseCallbackManager = run.get_child(tag)
    callbacks.add_handler(recorder, inherit=True)
    return isolate_config(patch_config(config, callbacks=callbacks))


def isolate_ambient_config() -> RunnableConfig:
    """Return the config around this call without its streams.

    It is meant for steps that ignore the config that they are given.
    """
    config = ensure_config()
    # The manager is new, so removing handlers from it leaves the caller's callbacks alone.
    callbacks = get_callback_manager_for_config(config)
    return isolate_config(patch_config(config, callbacks=callbacks))


def isolate_config(config: RunnableConfig) -> RunnableConfig:
    """Remove everything from a config that shows a run while it is still running.

    These are the handlers behind astream_events, astream_log, stream_events and LangGraph's modes
    (also for subgraphs), and the handlers of pages. Of any other handler that is no tracer, the
    tokens are held back. The run can reach neither the state nor a task of a graph around it.

    Args:
        config: a config whose callbacks are a manager of its own. The manager is changed in place.
    """
    callbacks = config.get("callbacks")
    if isinstance(callbacks, BaseCallbackManager):
        isolated = {
            id(handler): _isolate_handler(handler)
            for handler in (*callbacks.handlers, *callbacks.inheritable_handlers)
        }
        callbacks.handlers = _replace(callbacks.handlers, isolated)
        callbacks.inheritable_handlers = _replace(callbacks.inheritable_handlers, isolated)
    if "configurable" not in config:
        return config
    return {**config, "configurable": isolate_from_graph(config["configurable"])}


def _replace(
    handlers: Sequence[BaseCallbackHandler], isolated: Mapping[int, BaseCallbackHandler | None]
) -> list[BaseCallbackHandler]:
    replaced = [isolated[id(handler)] for handler in handlers]
    return [handler for handler in replaced if handler is not None]


def _isolate_handler(handler: BaseCallbackHandler) -> BaseCallbackHandler | None:
    """Return the handler, or one that shares its state and gets no tokens, or None to leave it out."""
    handler_type: Any = type(handler)
    if _is_for_readers(handler_type):
        return None
    # LangChain adds a handler from a context variable again unless it finds that very object.
    if not _takes_tokens(handler_type) or _is_from_context(handler):
        return handler
    quiet_type = _make_quiet_type(handler_type)
    if quiet_type is None:
        return None
    quiet: BaseCallbackHandler = object.__new__(quiet_type)
    quiet.__dict__ = handler.__dict__
    return quiet


@lru_cache(maxsize=256)
def _is_for_readers(handler_type: Any) -> bool:
    if issubclass(handler_type, _STREAMING_HANDLERS):
        return True
    bases = handler_type.__mro__
    libraries = {base.__module__.partition(".")[0] for base in bases}
    names = {base.__name__ for base in bases}
    return bool(names & _PAGE_HANDLERS or libraries & _PAGE_LIBRARIES)


@lru_cache(maxsize=256)
def _takes_tokens(handler_type: Any) -> bool:
    """Tell whether a handler does something with tokens. Tracers only note them for later."""
    if issubclass(handler_type, BaseTracer | AsyncBaseTracer | RunRecorder):
        return False
    silent = (BaseCallbackHandler, AsyncCallbackHandler)
    for name in _TOKEN_METHODS:
        inherited = [getattr(base, name, None) for base in silent]
        if getattr(handler_type, name, None) not in inherited:
            return True
    return False


@lru_cache(maxsize=256)
def _make_quiet_type(handler_type: Any) -> Any:
    """Make a subclass without tokens, or return None if its objects could not share their state."""
    if any(vars(base).get("__slots__") for base in handler_type.__mro__):
        return None
    is_async = issubclass(handler_type, AsyncCallbackHandler)
    ignore = _aignore_token if is_async else _ignore_token
    quiet_type: Any = type(
        handler_type.__name__, (handler_type,), dict.fromkeys(_TOKEN_METHODS, ignore)
    )
    return quiet_type if quiet_type.__new__ is object.__new__ else None


def _ignore_token(*arguments: Any, **options: Any) -> None:
    pass


async def _aignore_token(*arguments: Any, **options: Any) -> None:
    pass


def _is_from_context(handler: BaseCallbackHandler) -> bool:
    hooks = getattr(context, "_configure_hooks", ())
    return any(variable.get() is handler for variable, *_ in hooks)
