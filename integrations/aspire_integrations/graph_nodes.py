"""Nodes for graphs of LangGraph: a node that answers under guard, and a node that pauses for a person's decision.

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
from aspire_guard.exchange.extraction import find_context_under_keys
from aspire_guard.exchange.given_context import give_context
from aspire_integrations.graph_review import collect_reviews, merge_reviews, wait_for_decision


class GuardedState(TypedDict):
    """A state of messages, and the answers that wait for a person, by the ids of their messages."""

    messages: Annotated[list[AnyMessage], add_messages]
    aspire_review: NotRequired[Annotated[dict[str, Any], merge_reviews]]


def answer_node(guard: Runnable[Any, Any]) -> Runnable[Any, dict[str, Any]]:
    """Make a node that gives the state's messages to a guard, and adds the guard's answer to them.

    The guard judges the answer with the state's `context`, `documents` or `docs`, or else with what tools have
    returned since the question.

    An answer that the policy sends to an `InterruptReview` is put under `aspire_review`, so the next node must be
    `review_node`. Several of these nodes may answer in one step, also under `Send`. An interrupt of the guard pauses
    the graph even if fallbacks or retries around the guard take it for a failure.

    Args:
        guard: takes messages, and returns a message, a text, or a dict with one of them.
    """

    def answer(state: GuardedState, config: RunnableConfig) -> dict[str, Any]:
        with give_context(_read_context(state)), collect_reviews(config) as collector:
            output = guard.invoke(state["messages"], collector.config)
        message = _make_message(output)
        return {"messages": [message], "aspire_review": collector.make_pending_reviews(message)}

    async def aanswer(state: GuardedState, config: RunnableConfig) -> dict[str, Any]:
        with give_context(_read_context(state)), collect_reviews(config) as collector:
            output = await guard.ainvoke(state["messages"], collector.config)
        message = _make_message(output)
        return {"messages": [message], "aspire_review": collector.make_pending_reviews(message)}

    return RunnableLambda(answer, afunc=aanswer, name="answer")


def review_node(state: GuardedState) -> dict[str, Any]:
    """Pause the graph while answers wait for a person. A decision resumes it.

    `Command(resume={"action": "approve"})` is a decision. The actions are approve, edit, reject and respond, and
    edit and respond need a `text`. If no answer waits, the state stays as it is. If several answers wait, such as
    one to an earlier question of the thread, the graph pauses for each, the oldest first, and the decisions take
    effect together.

    Raises:
        GraphInterrupt: nobody has decided yet. Its value is the item to decide on.
    """
    return wait_for_decision(state) or {}


def _read_context(state: GuardedState) -> str | None:
    found = find_context_under_keys(state, "input")
    return None if found is None else found.text


def _make_message(output: Any) -> AIMessage:
    """Return the answer in a guard's output as a message with an id."""
    answer = find_answer(output)
    message = answer if isinstance(answer, AIMessage) else AIMessage(read_answer(output))
    return message if message.id else message.model_copy(update={"id": str(uuid4())})
