"""The config that a guarded chain runs under: hidden from streams and graphs, recorded by the guard."""

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

# The handlers that feed astream_events, astream_log, stream_events and LangGraph's "messages" mode.
_STREAMING_HANDLERS: tuple[type, ...] = tuple(
    getattr(_streaming, name)
    for name in ("_StreamingCallbackHandler", "_V2StreamingCallbackHandler")
    if hasattr(_streaming, name)
)

# Handlers of LangChain whose only use is to show each token to a reader.
_TOKEN_PRINTERS = {"StreamingStdOutCallbackHandler", "AsyncIteratorCallbackHandler"}


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
    (also for subgraphs), and the handlers that show each token to a reader. All other handlers
    stay, such as tracers. The run can reach neither the state nor a task of a graph around it.

    Args:
        config: a config whose callbacks are a manager of its own. The manager is changed in place.
    """
    callbacks = config.get("callbacks")
    if isinstance(callbacks, BaseCallbackManager):
        for handler in {*callbacks.handlers, *callbacks.inheritable_handlers}:
            handler_type: Any = type(handler)
            if _shows_tokens(handler_type):
                callbacks.remove_handler(handler)
    if "configurable" not in config:
        return config
    return {**config, "configurable": isolate_from_graph(config["configurable"])}


@lru_cache(maxsize=256)
def _shows_tokens(handler_type: Any) -> bool:
    if issubclass(handler_type, _STREAMING_HANDLERS):
        return True
    return any(base.__name__ in _TOKEN_PRINTERS for base in handler_type.__mro__)
