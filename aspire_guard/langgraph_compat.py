"""Everything that this library knows about LangGraph's internals, without importing LangGraph.

A class of LangGraph is looked up in `sys.modules`: if LangGraph has not been imported, no object
of that class can exist. Graphs reach their nodes through reserved keys of the config, which
`isolate_from_graph` cuts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from langchain_core.runnables import (
    Runnable,
    RunnableConfig,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase

from aspire_guard.errors import UnguardedWriteError

# The keys of `configurable` through which a graph reaches the code inside a node: the stream that
# subgraphs write to, the runtime with the stream writer, the channel that writes to the state, and
# the function that starts a task. The checkpointer is not one of `_GRAPH_KEYS`: the chain keeps it.
_STREAM_KEY = "__pregel_stream"
_RUNTIME_KEY = "__pregel_runtime"
_SEND_KEY = "__pregel_send"
_CALL_KEY = "__pregel_call"
_CHECKPOINTER_KEY = "__pregel_checkpointer"
_GRAPH_KEYS = (_STREAM_KEY, _RUNTIME_KEY, _SEND_KEY, _CALL_KEY)

# A node writes under this name to take the answer to an interrupt. It is not part of its output.
_RESUME = "__resume__"


def has_graph(chain: Runnable[Any, Any]) -> bool:
    """Tell whether a chain is a graph, such as an agent, or has a graph as a step."""
    if isinstance(chain, RunnableSequence):
        return any(has_graph(step) for step in chain.steps)
    if isinstance(chain, RunnableBindingBase):
        return has_graph(chain.bound)
    if isinstance(chain, RunnableWithFallbacks):
        return any(has_graph(runnable) for runnable in chain.runnables)
    return _is_instance(chain, "langgraph.pregel.protocol", "PregelProtocol")


def is_interrupt(error: BaseException) -> bool:
    """Tell whether an exception pauses or stops a graph (`GraphBubbleUp`) instead of reporting an error.

    A command for the parent graph travels as an exception too, but does not count: it writes to
    the graph's state.
    """
    if is_parent_command(error):
        return False
    return _is_instance(error, "langgraph.errors", "GraphBubbleUp")


def is_parent_command(error: BaseException) -> bool:
    """Tell whether an exception carries a `Command` for the graph around the current one."""
    return _is_instance(error, "langgraph.errors", "ParentCommand")


def can_pause(config: RunnableConfig) -> bool:
    """Tell whether the graph around a call keeps checkpoints, without which it can't be resumed."""
    return config.get("configurable", {}).get(_CHECKPOINTER_KEY) is not None


def isolate_from_graph(configurable: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a config's `configurable` that can't stream, write state or start tasks.

    Only the answers to interrupts still pass. A `configurable` that comes from outside a graph is
    returned unchanged.
    """
    if configurable.keys().isdisjoint(_GRAPH_KEYS):
        return configurable
    isolated = {key: value for key, value in configurable.items() if key != _STREAM_KEY}
    runtime: Any = isolated.get(_RUNTIME_KEY)
    if hasattr(runtime, "override"):
        isolated[_RUNTIME_KEY] = runtime.override(stream_writer=_discard_chunk)
    if _SEND_KEY in isolated:
        isolated[_SEND_KEY] = partial(_send_resumes, isolated[_SEND_KEY])
    if _CALL_KEY in isolated:
        isolated[_CALL_KEY] = _refuse_task
    return isolated


def _is_instance(value: object, module: str, name: str) -> bool:
    imported = sys.modules.get(module)
    return imported is not None and isinstance(value, getattr(imported, name))


def _discard_chunk(chunk: Any) -> None:
    pass


def _send_resumes(
    send: Callable[[Sequence[tuple[str, Any]]], None], writes: Sequence[tuple[str, Any]]
) -> None:
    """Pass on the answers to interrupts, and no write to the state."""
    send([write for write in writes if write[0] == _RESUME])


def _refuse_task(function: Any, *args: Any, **options: Any) -> Any:
    # Calling the function directly would silently lose its retries, its cache and its checkpoint.
    name = getattr(function, "__name__", type(function).__name__)
    raise UnguardedWriteError(
        f"expected no call of a graph's task inside the guard, found one of {name!r}, whose result the graph would "
        "show before it is judged; call the guard inside the task, or guard an entrypoint that calls it"
    )
