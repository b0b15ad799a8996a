"""aspire-guard: know when an LLM application is wrong.

`AspireGuard(chain)` wraps any LangChain chain: every answer gets a calibrated probability of being
right, and an answer that falls short is withheld.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aspire_guard.lazy_names import load_lazily

if TYPE_CHECKING:
    from aspire_guard.errors import AspireGuardError, ChainError, InputError, PolicyError
    from aspire_guard.evaluators.callable import CallableEvaluator
    from aspire_guard.evaluators.protocol import Evaluator
    from aspire_guard.evaluators.self_evaluator import SelfEvaluator
    from aspire_guard.exchange.exchange import Exchange
    from aspire_guard.guard import AspireGuard
    from aspire_guard.lm.template import PromptTemplate
    from aspire_guard.observe.handler import AspireCallbackHandler
    from aspire_guard.review.item import Decision, ReviewItem
    from aspire_guard.review.queue import ReviewQueue
    from aspire_guard.review.ticket import Ticket
    from aspire_guard.routing.policy import RoutingPolicy
    from aspire_guard.routing.routes import (
        Abstain,
        Accept,
        Band,
        Budget,
        Custom,
        Fallback,
        HumanReview,
        Timeouts,
    )
    from aspire_guard.verdict import Score, Step, Verdict

__all__ = [
    "Abstain",
    "Accept",
    "AspireCallbackHandler",
    "AspireGuard",
    "AspireGuardError",
    "Band",
    "Budget",
    "CallableEvaluator",
    "ChainError",
    "Custom",
    "Decision",
    "Evaluator",
    "Exchange",
    "Fallback",
    "HumanReview",
    "InputError",
    "PolicyError",
    "PromptTemplate",
    "ReviewItem",
    "ReviewQueue",
    "RoutingPolicy",
    "Score",
    "SelfEvaluator",
    "Step",
    "Ticket",
    "Timeouts",
    "Verdict",
]

_MODULES = {
    "Abstain": "aspire_guard.routing.routes",
    "Accept": "aspire_guard.routing.routes",
    "AspireCallbackHandler": "aspire_guard.observe.handler",
    "AspireGuard": "aspire_guard.guard",
    "AspireGuardError": "aspire_guard.errors",
    "Band": "aspire_guard.routing.routes",
    "Budget": "aspire_guard.routing.routes",
    "CallableEvaluator": "aspire_guard.evaluators.callable",
    "ChainError": "aspire_guard.errors",
    "Custom": "aspire_guard.routing.routes",
    "Decision": "aspire_guard.review.item",
    "Evaluator": "aspire_guard.evaluators.protocol",
    "Exchange": "aspire_guard.exchange.exchange",
    "Fallback": "aspire_guard.routing.routes",
    "HumanReview": "aspire_guard.routing.routes",
    "InputError": "aspire_guard.errors",
    "PolicyError": "aspire_guard.errors",
    "PromptTemplate": "aspire_guard.lm.template",
    "ReviewItem": "aspire_guard.review.item",
    "ReviewQueue": "aspire_guard.review.queue",
    "RoutingPolicy": "aspire_guard.routing.policy",
    "Score": "aspire_guard.verdict",
    "SelfEvaluator": "aspire_guard.evaluators.self_evaluator",
    "Step": "aspire_guard.verdict",
    "Ticket": "aspire_guard.review.ticket",
    "Timeouts": "aspire_guard.routing.routes",
    "Verdict": "aspire_guard.verdict",
}

__getattr__, __dir__ = load_lazily(__name__, _MODULES)
