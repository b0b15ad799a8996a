"""The length up to which a model's rotary positions are the same in every batch."""

from __future__ import annotations

from typing import Any

UNLIMITED = 2**31


def find_rope_limit(config: Any) -> int:
    """Return the longest text, in tokens, that does not change how shorter texts beside it are read.

    LongRoPE turns all positions of a batch at another speed as soon as one of its texts is longer than the original
    window. States that were computed before don't fit then.
    """
    parameters: Any = getattr(config, "rope_parameters", None) or {}
    # Models with layers of several types may have positions for each type.
    by_type = [value for value in parameters.values() if isinstance(value, dict)]
    limits = [UNLIMITED]
    for rope in by_type or [parameters]:
        if rope.get("rope_type") == "longrope":
            limits.append(rope.get("original_max_position_embeddings") or UNLIMITED)
    return min(limits)
