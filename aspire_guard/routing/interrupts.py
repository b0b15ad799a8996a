"""LangGraph's way of pausing a graph is an exception, which must pass through everything that handles errors."""

from __future__ import annotations

import sys


def is_interrupt(error: BaseException) -> bool:
    """Whether an exception pauses or steers a graph (`GraphBubbleUp`), rather than tells of an error."""
    # Nobody can have raised one where LangGraph has not been imported.
    errors = sys.modules.get("langgraph.errors")
    return errors is not None and isinstance(error, errors.GraphBubbleUp)
