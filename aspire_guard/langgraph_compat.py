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

# The names of an entrypoint's result and of what it keeps for its next call, of the node that takes the input, and of
# the key that names one checkpoint of a thread.
_END = "__end__"
_PREVIOUS = "__previous__"
_START = "__start__"
_CHECKPOINT_ID_KEY = "checkpoint_id"

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


def has_own_memory(runnable: object) -> bool:
    """Tell whether a runnable is a graph with a checkpointer, which keeps its state from one call to the next."""
    if not _is_instance(runnable, "langgraph.pregel.protocol", "PregelProtocol"):
        return False
    return bool(getattr(runnable, "checkpointer", None))


class GraphState:
    """The state that a graph with a checkpointer keeps for a thread.

    Args:
        graph: the graph.
        config: the config that names the thread.
    """

    def __init__(self, graph: Any, config: RunnableConfig) -> None:
        self._graph = graph
        configurable = dict(config.get("configurable", {}))
        self._config_before: RunnableConfig = {"configurable": configurable}
        # A call may start from an earlier checkpoint. The state after it is the latest one.
        latest = {key: value for key, value in configurable.items() if key != _CHECKPOINT_ID_KEY}
        self._config: RunnableConfig = {"configurable": latest}
        self._has_loaded = False

    def load(self) -> Any:
        """Return the values of the state. An entrypoint's state is its result and what it saves."""
        config = self._choose_config()
        if self._is_entrypoint:
            saved = self._graph.checkpointer.get_tuple(config)
            return _read_saved_values(saved)
        return self._graph.get_state(config).values

    async def aload(self) -> Any:
        """Load asynchronously; see `load`."""
        config = self._choose_config()
        if self._is_entrypoint:
            saved = await self._graph.checkpointer.aget_tuple(config)
            return _read_saved_values(saved)
        return (await self._graph.aget_state(config)).values

    def save(self, values: Any, before: Any) -> None:
        """Update the state by the values that differ from `before`, past the reducers of their channels."""
        update = self._make_update(values, before)
        for node in self._list_nodes():
            try:
                self._graph.update_state(self._config, update, as_node=node)
            except Exception as error:
                if not _is_instance(error, "langgraph.errors", "InvalidUpdateError"):
                    raise
            else:
                return

    async def asave(self, values: Any, before: Any) -> None:
        """Save asynchronously; see `save`."""
        update = self._make_update(values, before)
        for node in self._list_nodes():
            try:
                await self._graph.aupdate_state(self._config, update, as_node=node)
            except Exception as error:
                if not _is_instance(error, "langgraph.errors", "InvalidUpdateError"):
                    raise
            else:
                return

    @property
    def _is_entrypoint(self) -> bool:
        return _PREVIOUS in self._graph.channels

    def _choose_config(self) -> RunnableConfig:
        config = self._config if self._has_loaded else self._config_before
        self._has_loaded = True
        return config

    def _list_nodes(self) -> list[str | None]:
        """List the nodes as which the state may be updated. None is the last node, if there was only one."""
        nodes = [name for name in self._graph.nodes if name != _START]
        return [*nodes] if self._is_entrypoint else [None, *nodes]

    def _make_update(self, values: Any, before: Any) -> Any:
        if self._is_entrypoint:
            from langgraph.func import entrypoint

            return entrypoint.final(value=values.get(_END), save=values.get(_PREVIOUS))
        from langgraph.types import Overwrite

        update = {}
        for name, value in values.items():
            if value is not before.get(name):
                has_reducer = _is_instance(
                    self._graph.channels.get(name),
                    "langgraph.channels.binop",
                    "BinaryOperatorAggregate",
                )
                update[name] = Overwrite(value) if has_reducer else value
        return update


def _read_saved_values(saved: Any) -> dict[str, Any]:
    values = {} if saved is None else saved.checkpoint["channel_values"]
    return {name: values[name] for name in (_END, _PREVIOUS) if name in values}


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
