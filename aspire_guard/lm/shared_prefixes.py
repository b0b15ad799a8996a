"""Which contexts are turns of one conversation: each holds the earlier ones, and goes on with a new line."""

from __future__ import annotations

from collections.abc import Iterable


def find_first_turns(contexts: Iterable[str | None]) -> dict[str | None, str | None]:
    """Of each context the shortest one that it begins with and goes on after a line break; itself if there is none."""
    given = list(dict.fromkeys(contexts))
    found: dict[str | None, str | None] = {}
    first = None
    # In order of their lines, whatever goes on after a context comes next.
    for context in sorted(filter(None, given), key=lambda text: text.split("\n")):
        if first is None or not context.startswith(f"{first}\n"):
            first = context
        found[context] = first
    return {context: found.get(context, context) for context in given}
