"""aspire-guard: know when an LLM application is wrong.

`AspireGuard(chain)` wraps any LangChain chain: every answer gets a calibrated probability of being
right, and an answer that falls short is withheld.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aspire_guard.errors import AspireGuardError
    from aspire_guard.evaluators.constant import ConstantEvaluator
    from aspire_guard.evaluators.protocol import Evaluator
    from aspire_guard.evaluators.self_evaluator import SelfEvaluator
    from aspire_guard.evaluators.starter import starter_evaluator
    from aspire_guard.exchange import Exchange
    from aspire_guard.guard import AspireGuard
    from aspire_guard.observe import AspireCallbackHandler
    from aspire_guard.routing.policy import RoutingPolicy
    from aspire_guard.verdict import Score, Verdict

__all__ = [
    "AspireCallbackHandler",
    "AspireGuard",
    "AspireGuardError",
    "ConstantEvaluator",
    "Evaluator",
    "Exchange",
    "RoutingPolicy",
    "Score",
    "SelfEvaluator",
    "Verdict",
    "starter_evaluator",
]

_HOMES = {
    "AspireCallbackHandler": "aspire_guard.observe",
    "AspireGuard": "aspire_guard.guard",
    "AspireGuardError": "aspire_guard.errors",
    "ConstantEvaluator": "aspire_guard.evaluators.constant",
    "Evaluator": "aspire_guard.evaluators.protocol",
    "Exchange": "aspire_guard.exchange",
    "RoutingPolicy": "aspire_guard.routing.policy",
    "Score": "aspire_guard.verdict",
    "SelfEvaluator": "aspire_guard.evaluators.self_evaluator",
    "Verdict": "aspire_guard.verdict",
    "starter_evaluator": "aspire_guard.evaluators.starter",
}


def __getattr__(name: str) -> Any:
    # On first use, so that importing the package brings neither torch nor all of LangChain.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
