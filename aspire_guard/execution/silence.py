"""The config that a guarded chain runs under: silent towards streams and graphs, watched by the guard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.callbacks.manager import AsyncParentRunManager, ParentRunManager
from langchain_core.runnables.config import (
    RunnableConfig,
    ensure_config,
    get_callback_manager_for_config,
    patch_config,
)

from aspire_guard.errors import UnguardedWriteError
from aspire_guard.exchange.chain_watch import ChainWatch

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

# Where LangGraph keeps what reaches from a node into its graph: for graphs inside it the stream that they write to,
# the stream writer, what writes to the state, and what starts a task.
_GRAPH_STREAM, _GRAPH_RUNTIME, _GRAPH_SEND, _GRAPH_CALL = (
    "__pregel_stream",
    "__pregel_runtime",
    "__pregel_send",
    "__pregel_call",
)

# What a node writes to take the answer to an interrupt, under this name, is no output of it.
_RESUME = "__resume__"


def watched(
    config: RunnableConfig,
    run: ParentRunManager | AsyncParentRunManager,
    watch: ChainWatch,
    tag: str = "aspire_guard:chain",
) -> RunnableConfig:
    """`config` for a guarded chain or a fallback: a child of the guard's run, seen by `watch` and by no stream."""
    callbacks: BaseCallbackManager = run.get_child(tag)
    callbacks.add_handler(watch, inherit=True)
    return silenced(patch_config(config, callbacks=callbacks))


def silent_surroundings() -> RunnableConfig:
    """The config around this call without its streams, for what runs in there and ignores the config it is given."""
    config = ensure_config()
    return silenced(patch_config(config, callbacks=get_callback_manager_for_config(config)))


def silenced(config: RunnableConfig) -> RunnableConfig:
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
    configurable = config.get("configurable", {})
    if configurable.keys().isdisjoint((_GRAPH_STREAM, _GRAPH_RUNTIME, _GRAPH_SEND, _GRAPH_CALL)):
        return config
    quiet = {key: value for key, value in configurable.items() if key != _GRAPH_STREAM}
    runtime: Any = quiet.get(_GRAPH_RUNTIME)
    if hasattr(runtime, "override"):
        quiet[_GRAPH_RUNTIME] = runtime.override(stream_writer=_write_nowhere)
    if _GRAPH_SEND in quiet:
        quiet[_GRAPH_SEND] = partial(_send_resumes, quiet[_GRAPH_SEND])
    if _GRAPH_CALL in quiet:
        quiet[_GRAPH_CALL] = _refuse_task
    return {**config, "configurable": quiet}


@lru_cache(maxsize=256)
def _shows_tokens(handler: Any) -> bool:
    return issubclass(handler, _STREAMING_HANDLERS) or any(base.__name__ in _SHOWING for base in handler.__mro__)


def _write_nowhere(chunk: Any) -> None:
    pass


def _send_resumes(send: Callable[[Sequence[tuple[str, Any]]], None], writes: Sequence[tuple[str, Any]]) -> None:
    """What a graph inside has to tell of an interrupt that was answered, and nothing for the state."""
    send([write for write in writes if write[0] == _RESUME])


def _refuse_task(function: Any, *args: Any, **options: Any) -> Any:
    # Run in place it would lose its retries, its cache and its place in the checkpoints, without a word.
    name = getattr(function, "__name__", type(function).__name__)
    raise UnguardedWriteError(
        f"expected no call of a graph's task inside the guard, found one of {name!r}, whose result the graph would "
        "show before it is judged; call the guard inside the task, or guard an entrypoint that calls it"
    )
