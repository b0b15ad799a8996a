"""Texts and token sequences that begin alike, whose states need computing only once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the data of the trainers is read without torch
    from torch import Tensor


def find_first_turns(contexts: Iterable[str | None]) -> dict[str | None, str | None]:
    """Map each context to the shortest context that it starts with and continues on a new line.

    These are the turns of one conversation: each context holds the earlier turns. A context that
    continues no other one is mapped to itself.
    """
    first_turns = {context: context for context in contexts}
    # Sorted by their lines, the contexts that continue a context follow it directly.
    in_order = sorted(
        filter(None, first_turns),
        key=lambda context: context.split("\n"),
    )
    first = None
    for context in in_order:
        if first is None or not context.startswith(f"{first}\n"):
            first = context
        first_turns[context] = first
    return first_turns


def count_common_prefix(ids: Tensor, others: Tensor) -> int:
    """Return the number of tokens that two sequences of ids `(tokens,)` both begin with."""
    shorter = min(len(ids), len(others))
    is_equal = ids[:shorter] == others[:shorter]
    return int(is_equal.cumprod(0).sum())
