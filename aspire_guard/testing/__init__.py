"""Test doubles, for the tests of this library and of what is built on it: models that need no download."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aspire_guard.testing.scripted import ScriptedChatModel
    from aspire_guard.testing.tiny import (
        END_TOKEN,
        FAMILIES,
        MAX_LENGTH,
        START_TOKEN,
        Family,
        tiny_evaluator,
        tiny_lm,
    )

__all__ = [
    "END_TOKEN",
    "FAMILIES",
    "MAX_LENGTH",
    "START_TOKEN",
    "Family",
    "ScriptedChatModel",
    "tiny_evaluator",
    "tiny_lm",
]


def __getattr__(name: str) -> Any:
    # On first use: the tiny models bring torch, which the scripted one does not need.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{'scripted' if name == 'ScriptedChatModel' else 'tiny'}"), name)
