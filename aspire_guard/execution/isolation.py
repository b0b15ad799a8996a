"""The config that a guarded chain runs under: silent towards streams and graphs, watched by the guard."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.callbacks.manager import AsyncParentRunManager, ParentRunManager
from langchain_core.runnables.config import (
    RunnableConfig,
    ensure_config,
    get_callback_manager_for_config,
    patch_config,
)

from aspire_guard.exchange.run_recorder import RunRecorder
from aspire_guard.langgraph_compat import isolate_from_graph

try:
    from langchain_core.tracers import _streaming
except ImportError:  # private to langchain-core, so it may move
    _streaming = None  # type: ignore[assignment]

# What feeds astream_events, astream_log, stream_events and LangGraph's "messages" mode.
_STREAMING_HANDLERS: tuple[type, ...] = tuple(
    getattr(_streaming, name)
    for name in ("_StreamingCallbackHandler", "_V2StreamingCallbackHandler")
    if hasattr(_streaming, name)
)

# Handlers of LangChain whose only use is to show a reader each token.
_SHOWING = {"StreamingStdOutCallbackHandler", "AsyncIteratorCallbackHandler"}


def child_config(
    config: RunnableConfig,
    run: ParentRunManager | AsyncParentRunManager,
    watch: RunRecorder,
    tag: str = "aspire_guard:chain",
) -> RunnableConfig:
    """`config` for a guarded chain or a fallback: a child of the guard's run, seen by `watch` and by no stream."""
    callbacks: BaseCallbackManager = run.get_child(tag)
    callbacks.add_handler(watch, inherit=True)
    return isolate_config(patch_config(config, callbacks=callbacks))


def isolated_ambient_config() -> RunnableConfig:
    """The config around this call without its streams, for what runs in there and ignores the config it is given."""
    config = ensure_config()
    return isolate_config(patch_config(config, callbacks=get_callback_manager_for_config(config)))


def isolate_config(config: RunnableConfig) -> RunnableConfig:
    """`config`, whose callbacks are a manager of its own, with nothing left that shows a run while it goes on.

    That is what feeds astream_events, astream_log, stream_events and LangGraph's modes, a subgraph's included, and
    the handlers that show a reader each token. All other handlers stay, tracers among them. Of a graph around the run
    neither the state nor a task is in reach.
    """
    callbacks = config.get("callbacks")
    if isinstance(callbacks, BaseCallbackManager):
        for handler in {*callbacks.handlers, *callbacks.inheritable_handlers}:
            kind: Any = type(handler)
            if _shows_tokens(kind):
                callbacks.remove_handler(handler)
    if "configurable" not in config:
        return config
    return {**config, "configurable": isolate_from_graph(config["configurable"])}


@lru_cache(maxsize=256)
def _shows_tokens(handler: Any) -> bool:
    return issubclass(handler, _STREAMING_HANDLERS) or any(
        base.__name__ in _SHOWING for base in handler.__mro__
    )
