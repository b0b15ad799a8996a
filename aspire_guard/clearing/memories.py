"""Memories of chains: the states of graphs with a checkpointer, and the histories of conversations.

A chain that remembers would repeat a rejected answer in its next turn, and its model would take it for its own. The
guard therefore reads a memory before the chain runs, and clears what was added if the answer is rejected.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import FunctionType, MethodType
from typing import Any, Protocol

from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import merge_configs
from langchain_core.runnables.history import RunnableWithMessageHistory

from aspire_guard.clearing.known_values import KnownValues, take_snapshot
from aspire_guard.clearing.walker import Clearing
from aspire_guard.errors import UnguardedWriteError
from aspire_guard.langgraph_compat import GraphState, has_own_memory

# Functions that functions call are searched too, up to this depth.
_DEEPEST_VARIABLE = 4
# A longer list or dict holds data and no steps.
_MOST_STEPS = 100


class Memory(Protocol):
    """A store that keeps what a chain has said from one call to the next."""

    def load(self) -> Any:
        """Return what the memory holds."""
        ...

    async def aload(self) -> Any:
        """Load asynchronously; see `load`."""
        ...

    def save(self, values: Any, before: Any) -> None:
        """Replace what the memory holds. `before` is what it holds now."""
        ...

    async def asave(self, values: Any, before: Any) -> None:
        """Save asynchronously; see `save`."""
        ...


class History:
    """The history of a conversation that a `RunnableWithMessageHistory` keeps."""

    def __init__(self, runnable: RunnableWithMessageHistory, config: RunnableConfig) -> None:
        configurable = config.get("configurable", {})
        keys = [spec.id for spec in runnable.history_factory_config]
        values = {key: configurable[key] for key in keys if key in configurable}
        if len(keys) == 1 and values:
            self._history = runnable.get_session_history(*values.values())
        else:
            self._history = runnable.get_session_history(**values)

    def load(self) -> Any:
        """Return the messages."""
        return list(self._history.messages)

    async def aload(self) -> Any:
        """Load asynchronously; see `load`."""
        return list(await self._history.aget_messages())

    def save(self, values: Any, before: Any) -> None:
        """Write the messages anew."""
        self._history.clear()
        self._history.add_messages(values)

    async def asave(self, values: Any, before: Any) -> None:
        """Save asynchronously; see `save`."""
        await self._history.aclear()
        await self._history.aadd_messages(values)


@dataclass(frozen=True)
class RememberingStep:
    """A step of a chain that has a memory.

    Attributes:
        open_memory: opens the memory that a config names, such as that of a thread.
        config: the config that the steps around it bind to it.
        thread_keys: the keys of `configurable` that name the thread.
        is_called_by_function: True if a function of the chain calls it, perhaps under a config of its own.
    """

    open_memory: Callable[[RunnableConfig], Memory]
    config: RunnableConfig
    thread_keys: tuple[str, ...]
    is_called_by_function: bool


@dataclass(frozen=True)
class MemoryBefore:
    """A memory as it was before a run of the chain.

    Attributes:
        memory: the memory.
        values: what it held.
        key: the name of the memory in `rejected_by_key`.
        rejected_by_key: the answers that were rejected in earlier turns and that memories could not be cleared of.
    """

    memory: Memory
    values: Any
    key: tuple[Any, ...] = ()
    rejected_by_key: dict[tuple[Any, ...], set[str]] = field(default_factory=dict)

    @property
    def rejected(self) -> frozenset[str]:
        """The answers of earlier turns that the memory could not be cleared of."""
        return frozenset(self.rejected_by_key.get(self.key, ()))

    @property
    def snapshot(self) -> Any:
        """A snapshot of what it held, or None if some of that had been rejected."""
        return None if self.rejected else take_snapshot(self.values)


class MemoryFinder:
    """The memories of runnables, and the answers that they could not be cleared of, by thread."""

    def __init__(self) -> None:
        self._steps: dict[int, tuple[Runnable[Any, Any], list[RememberingStep]]] = {}
        self._rejected: dict[tuple[Any, ...], set[str]] = {}

    def __reduce__(self) -> Any:
        # The memories of a process are found anew in another.
        return MemoryFinder, ()

    def open(self, runnable: Runnable[Any, Any], config: RunnableConfig) -> list[MemoryBefore]:
        """Open the memories of a runnable for a call, before it runs.

        Raises:
            UnguardedWriteError: a function of the chain calls a graph that remembers, and the config names no thread.
        """
        return [
            MemoryBefore(memory, memory.load(), key, self._rejected)
            for memory, key in self._iterate_memories(runnable, config)
        ]

    async def aopen(
        self, runnable: Runnable[Any, Any], config: RunnableConfig
    ) -> list[MemoryBefore]:
        """Open asynchronously; see `open`."""
        return [
            MemoryBefore(memory, await memory.aload(), key, self._rejected)
            for memory, key in self._iterate_memories(runnable, config)
        ]

    def has_memory(self, runnable: Runnable[Any, Any]) -> bool:
        """Tell whether a runnable has a step that remembers."""
        return bool(self._find_steps(runnable))

    def _iterate_memories(
        self, runnable: Runnable[Any, Any], config: RunnableConfig
    ) -> Iterator[tuple[Memory, tuple[Any, ...]]]:
        """Iterate over the memories of a call, each with a key that stays the same from call to call."""
        for index, step in enumerate(self._find_steps(runnable)):
            merged = merge_configs(step.config, config)
            configurable = merged.get("configurable", {})
            thread = tuple(configurable.get(key) for key in step.thread_keys)
            if all(part is None for part in thread):
                if step.is_called_by_function:
                    raise UnguardedWriteError(_make_refusal(step))
                continue  # the step itself raises an error that names the missing key
            yield step.open_memory(merged), (id(runnable), index, *map(str, thread))

    def _find_steps(self, runnable: Runnable[Any, Any]) -> list[RememberingStep]:
        found = self._steps.get(id(runnable))
        if found is None:
            found = runnable, list(_iterate_remembering_steps(runnable, {}, False, set()))
            self._steps[id(runnable)] = found
        return found[1]


@dataclass(frozen=True)
class MemoryClearing:
    """The clearing of memories after an answer was rejected.

    Attributes:
        memories: the memories as they were before the run.
        answers: the rejected answers.
        message: the text that takes their place.
        known: the values that stay.
    """

    memories: Sequence[MemoryBefore]
    answers: tuple[str, ...]
    message: str
    known: KnownValues

    def run(self) -> None:
        """Clear the memories. An answer that stays in one of them is kept in mind for the thread's later turns."""
        for before in self.memories:
            try:
                values = before.memory.load()
                cleared = self._clear(before, values)
                if cleared is not values:
                    before.memory.save(cleared, values)
                is_clean = self._is_clean(before, before.memory.load())
            except Exception:  # a store that can't be written, or can't be reached
                is_clean = False
            self._note(before, is_clean)

    async def arun(self) -> None:
        """Clear asynchronously; see `run`."""
        for before in self.memories:
            try:
                values = await before.memory.aload()
                cleared = self._clear(before, values)
                if cleared is not values:
                    await before.memory.asave(cleared, values)
                is_clean = self._is_clean(before, await before.memory.aload())
            except Exception:
                is_clean = False
            self._note(before, is_clean)

    def _clear(self, before: MemoryBefore, values: Any) -> Any:
        snapshots = (*self.known.snapshots, before.snapshot)
        known = KnownValues(snapshots, self.known.passages)
        answers = (*self.answers, *before.rejected)
        return Clearing(answers, self.message, known, keeps_objects=True).clear(values)

    def _is_clean(self, before: MemoryBefore, values: Any) -> bool:
        # A memory that is empty after the run has not been found: the run has another one.
        return bool(values) and self._clear(before, values) == values

    def _note(self, before: MemoryBefore, is_clean: bool) -> None:
        if is_clean:
            before.rejected_by_key.pop(before.key, None)
        else:
            before.rejected_by_key.setdefault(before.key, set()).update(self.answers)


def _iterate_remembering_steps(
    runnable: Any, config: RunnableConfig, is_called: bool, searched: set[int]
) -> Iterator[RememberingStep]:
    """Iterate over the steps of a runnable that have a memory, without looking into graphs.

    Args:
        runnable: the runnable to search.
        config: the config that the steps around it bind to it.
        is_called: tells whether a function calls it.
        searched: the ids of the runnables that were searched already. They grow.
    """
    if id(runnable) in searched:
        return
    searched.add(id(runnable))
    if has_own_memory(runnable):

        def open_state(config: RunnableConfig) -> Memory:
            return GraphState(runnable, config)

        yield RememberingStep(open_state, config, ("thread_id",), is_called)
        return
    if isinstance(runnable, RunnableBindingBase):
        config = merge_configs(config, runnable.config)
    if isinstance(runnable, RunnableWithMessageHistory):

        def open_history(config: RunnableConfig) -> Memory:
            return History(runnable, config)

        keys = tuple(spec.id for spec in runnable.history_factory_config)
        yield RememberingStep(open_history, config, keys, is_called)
    if isinstance(runnable, RunnableLambda):
        functions = [getattr(runnable, name, None) for name in ("func", "afunc")]
        children = list(_iterate_runnables(functions, 0))
        is_called = True
    else:
        children = list(_iterate_runnables(vars(runnable).values(), 0))
    for child in children:
        yield from _iterate_remembering_steps(child, config, is_called, searched)


def _iterate_runnables(values: Iterable[Any], depth: int) -> Iterator[Runnable[Any, Any]]:
    """Iterate over runnables among values, in lists and dicts, and in the variables that functions read."""
    if depth > _DEEPEST_VARIABLE:
        return
    for value in values:
        if isinstance(value, Runnable):
            yield value
        elif isinstance(value, dict) and len(value) <= _MOST_STEPS:
            yield from _iterate_runnables(list(value.values()), depth + 1)
        elif isinstance(value, list | tuple) and len(value) <= _MOST_STEPS:
            yield from _iterate_runnables(list(value), depth + 1)
        elif isinstance(value, FunctionType):
            yield from _iterate_runnables(_list_variables(value), depth + 1)
        elif isinstance(value, MethodType):
            owner = value.__self__
            yield from _iterate_runnables([value.__func__, owner], depth)
            yield from _iterate_runnables(getattr(owner, "__dict__", {}).values(), depth + 1)
        elif isinstance(value, partial):
            read = [value.func, *value.args, *value.keywords.values()]
            yield from _iterate_runnables(read, depth + 1)


def _list_variables(function: FunctionType) -> list[Any]:
    """List the values of the variables of its surroundings that a function reads."""
    try:
        variables = inspect.getclosurevars(function)
    except ValueError:  # a variable has no value yet
        return []
    return [*variables.nonlocals.values(), *variables.globals.values()]


def _make_refusal(step: RememberingStep) -> str:
    keys = " and ".join(map(repr, step.thread_keys))
    return (
        f"expected {keys} in the configurable of the guard's config, found none, while a function of the guarded chain "
        "calls a step that remembers its answers, also those that are rejected; give the guard the config of the "
        "thread and pass it on to the step, or make the step a part of the chain"
    )
