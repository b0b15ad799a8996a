"""Aspire on frameworks: a LangChain chat model that scores itself, and a retriever to feed it."""

from __future__ import annotations

from aspire_integrations.chat_model import AspireChatModel
from aspire_integrations.retriever import BM25Retriever, format_documents

__all__ = ["AspireChatModel", "BM25Retriever", "format_documents"]
