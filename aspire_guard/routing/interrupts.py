"""What a guarded chain raises: interrupts pass through all that handles errors, and what was said does not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from langchain_core.exceptions import OutputParserException

from aspire_guard.errors import UnguardedWriteError


def is_interrupt(error: BaseException) -> bool:
    """Whether an exception pauses or stops a graph (`GraphBubbleUp`), rather than tells of an error.

    A command for the parent graph, which travels as an exception too, does not count: it writes to the state.
    """
    return _is_langgraphs(error, "GraphBubbleUp") and not _is_langgraphs(error, "ParentCommand")


def withheld(error: Exception) -> Exception:
    """An error of a guarded chain, or one in its place: a parser's quotes what was said, and a command holds it."""
    if isinstance(error, OutputParserException):
        return OutputParserException(
            "expected an output that the chain's parser can read, found another; mend the chain"
        )
    if not _is_langgraphs(error, "ParentCommand"):
        return error
    return UnguardedWriteError(
        "expected a guarded chain to leave the graph around it alone, found a Command for the parent graph, which "
        "would write past the guard; guard the step that answers, in an agent with AspireGuardMiddleware, and command "
        "outside the guard"
    )


@contextmanager
def confined() -> Iterator[None]:
    """Around a run of a guarded chain: raises what `withheld` makes of its error."""
    try:
        yield
    except Exception as error:
        told = withheld(error)
        if told is error:
            raise
        raise told from None


def _is_langgraphs(error: BaseException, name: str) -> bool:
    # Nobody can have raised one where LangGraph has not been imported.
    errors = sys.modules.get("langgraph.errors")
    return errors is not None and isinstance(error, getattr(errors, name))
