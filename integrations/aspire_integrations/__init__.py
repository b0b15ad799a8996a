"""aspire-guard inside frameworks: chat models, retrievers, agents, graphs, decisions and feedback."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aspire_guard.lazy_names import load_lazily

if TYPE_CHECKING:
    from aspire_integrations.chat_model import AspireChatModel
    from aspire_integrations.decisions import IS_RIGHT, AspireDecisionModel, DecisionEvaluator
    from aspire_integrations.feedback import langsmith_feedback
    from aspire_integrations.graph_nodes import GuardedState, answer_node, review_node
    from aspire_integrations.graph_resume import aresume_decided, resume_decided
    from aspire_integrations.graph_review import InterruptReview
    from aspire_integrations.middleware import AspireGuardMiddleware
    from aspire_integrations.retriever import BM25Retriever, format_documents

__all__ = [
    "IS_RIGHT",
    "AspireChatModel",
    "AspireDecisionModel",
    "AspireGuardMiddleware",
    "BM25Retriever",
    "DecisionEvaluator",
    "GuardedState",
    "InterruptReview",
    "answer_node",
    "aresume_decided",
    "format_documents",
    "langsmith_feedback",
    "resume_decided",
    "review_node",
]

_MODULES = {
    "AspireChatModel": "aspire_integrations.chat_model",
    "AspireDecisionModel": "aspire_integrations.decisions",
    "AspireGuardMiddleware": "aspire_integrations.middleware",
    "BM25Retriever": "aspire_integrations.retriever",
    "DecisionEvaluator": "aspire_integrations.decisions",
    "GuardedState": "aspire_integrations.graph_nodes",
    "IS_RIGHT": "aspire_integrations.decisions",
    "InterruptReview": "aspire_integrations.graph_review",
    "answer_node": "aspire_integrations.graph_nodes",
    "aresume_decided": "aspire_integrations.graph_resume",
    "format_documents": "aspire_integrations.retriever",
    "langsmith_feedback": "aspire_integrations.feedback",
    "resume_decided": "aspire_integrations.graph_resume",
    "review_node": "aspire_integrations.graph_nodes",
}

__getattr__, __dir__ = load_lazily(__name__, _MODULES)
