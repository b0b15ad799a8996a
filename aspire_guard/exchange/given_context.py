"""A context that a step around the guard holds, such as a graph's state, of which the chain gets only the messages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_given_context: ContextVar[str | None] = ContextVar("aspire_guard_given_context", default=None)


@contextmanager
def give_context(context: str | None) -> Iterator[None]:
    """Let guards inside the block judge with this context if they find no other."""
    token = _given_context.set(context)
    try:
        yield
    finally:
        _given_context.reset(token)


def get_given_context() -> str | None:
    """Return the context that a step around this call gave, or None."""
    return _given_context.get()
