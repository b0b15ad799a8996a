"""Test doubles for the tests of this library and of applications built on it, without a download."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aspire_guard.lazy_names import load_lazily

if TYPE_CHECKING:
    from aspire_guard.testing.constant import ConstantEvaluator
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
    "ConstantEvaluator",
    "Family",
    "ScriptedChatModel",
    "tiny_evaluator",
    "tiny_lm",
]

_MODULES = {
    "ConstantEvaluator": "aspire_guard.testing.constant",
    "END_TOKEN": "aspire_guard.testing.tiny",
    "FAMILIES": "aspire_guard.testing.tiny",
    "Family": "aspire_guard.testing.tiny",
    "MAX_LENGTH": "aspire_guard.testing.tiny",
    "START_TOKEN": "aspire_guard.testing.tiny",
    "ScriptedChatModel": "aspire_guard.testing.scripted",
    "tiny_evaluator": "aspire_guard.testing.tiny",
    "tiny_lm": "aspire_guard.testing.tiny",
}

__getattr__, __dir__ = load_lazily(__name__, _MODULES)
