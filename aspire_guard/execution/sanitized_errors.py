"""Replacements for the errors of a guarded chain that would carry its answer past the guard."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from langchain_core.exceptions import OutputParserException

from aspire_guard.errors import UnguardedWriteError
from aspire_guard.langgraph_compat import is_parent_command


def sanitize_error(error: Exception) -> Exception:
    """Return the error itself, or a replacement if it quotes or writes the chain's answer.

    A parser's error quotes the text that it could not parse, and a command for the parent graph
    holds an update of the state.
    """
    if isinstance(error, OutputParserException):
        return OutputParserException(
            "expected an output that the chain's parser can read, found another; fix the chain"
        )
    if is_parent_command(error):
        return UnguardedWriteError(
            "expected a guarded chain to leave the graph around it alone, found a Command for the parent graph, which "
            "would write past the guard; guard the step that answers, in an agent with AspireGuardMiddleware, and "
            "command outside the guard"
        )
    return error


@contextmanager
def sanitize_raised_error() -> Iterator[None]:
    """Pass each error that is raised inside the block through `sanitize_error`."""
    try:
        yield
    except Exception as error:
        replacement = sanitize_error(error)
        if replacement is error:
            raise
        raise replacement from None
