"""Nodes for graphs of LangGraph: one that answers under guard, and one that pauses for a person's decision.

builder.add_node("answer", answer_node(guard))
builder.add_node("review", review_node)
builder.add_edge("answer", "review")
"""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypedDict
from uuid import uuid4

from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langgraph.graph.message import add_messages

from aspire_guard.exchange import find_answer, read_answer
from aspire_integrations.graph_review import holding, reviewed


class GuardedState(TypedDict):
    """A state of messages, with the answer that waits for a person, if any does."""

    messages: Annotated[list[AnyMessage], add_messages]
    aspire_review: NotRequired[dict[str, Any] | None]


def answer_node(guard: Runnable[Any, Any]) -> Runnable[Any, dict[str, Any]]:
    """A node that gives the state's messages to a guard and adds what it releases.

    An answer that the policy sends to an `InterruptReview` is put under `aspire_review`, for `review_node` behind it.

    Args:
        guard: takes messages; gives a message, a text, or a dict with one of them.
    """

    def answer(state: GuardedState, config: RunnableConfig) -> dict[str, Any]:
        with holding(config) as held:
            message = _message(guard.invoke(state["messages"], held.config))
        return {"messages": [message], "aspire_review": held.pending(message)}

    async def aanswer(state: GuardedState, config: RunnableConfig) -> dict[str, Any]:
        with holding(config) as held:
            message = _message(await guard.ainvoke(state["messages"], held.config))
        return {"messages": [message], "aspire_review": held.pending(message)}

    return RunnableLambda(answer, afunc=aanswer, name="answer")


def review_node(state: GuardedState) -> dict[str, Any]:
    """Pauses the graph while an answer waits for a person; resume it with a decision.

    `Command(resume={"action": "approve"})`; the actions are approve, edit, reject and respond, those of edit and
    respond with a `text`. Where nothing waits, it lets the state pass.

    Raises:
        GraphInterrupt: nobody has decided yet; its value is the item to decide on.
    """
    return reviewed(state) or {}


def _message(output: Any) -> AIMessage:
    answer = find_answer(output)
    message = answer if isinstance(answer, AIMessage) else AIMessage(read_answer(output))
    return message if message.id else message.model_copy(update={"id": str(uuid4())})
