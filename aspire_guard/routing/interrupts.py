"""LangGraph pauses and steers a graph by exceptions: those that pause pass through everything that handles errors."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from aspire_guard.errors import UnguardedWriteError


def is_interrupt(error: BaseException) -> bool:
    """Whether an exception pauses or stops a graph (`GraphBubbleUp`), rather than tells of an error.

    A command for the parent graph, which travels as an exception too, does not count: it writes to the state.
    """
    return _is_langgraphs(error, "GraphBubbleUp") and not _is_langgraphs(error, "ParentCommand")


def refused(error: Exception) -> Exception:
    """An error of a guarded chain; in place of a command for the parent graph the error that refuses it."""
    if not _is_langgraphs(error, "ParentCommand"):
        return error
    return UnguardedWriteError(
        "expected a guarded chain to leave the graph around it alone, found a Command for the parent graph, which "
        "would write past the guard; guard the step that answers, in an agent with AspireGuardMiddleware, and command "
        "outside the guard"
    )


@contextmanager
def confined() -> Iterator[None]:
    """Around a run of a guarded chain: raises what `refused` makes of its error."""
    try:
        yield
    except Exception as error:
        refusal = refused(error)
        if refusal is error:
            raise
        # The command holds what was not judged.
        raise refusal from None


def _is_langgraphs(error: BaseException, name: str) -> bool:
    # Nobody can have raised one where LangGraph has not been imported.
    errors = sys.modules.get("langgraph.errors")
    return errors is not None and isinstance(error, getattr(errors, name))
