"""Graphs in a chain: LangGraph streams what a graph's nodes change, from which its output can't be put together."""

from __future__ import annotations

import sys
from typing import Any

from langchain_core.runnables import Runnable, RunnableSequence, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase


def has_graph(chain: Runnable[Any, Any]) -> bool:
    """Whether a chain is a graph of LangGraph, an agent say, or has one as a step."""
    if isinstance(chain, RunnableSequence):
        return any(has_graph(step) for step in chain.steps)
    if isinstance(chain, RunnableBindingBase):
        return has_graph(chain.bound)
    if isinstance(chain, RunnableWithFallbacks):
        return any(has_graph(one) for one in chain.runnables)
    # Nobody can have made one where LangGraph has not been imported.
    protocol = sys.modules.get("langgraph.pregel.protocol")
    return protocol is not None and isinstance(chain, protocol.PregelProtocol)
