"""What the caller passed in, retrieved or said before stays, and with each keeper taken out it is lost.

A keeper is one rule by which the clearing tells values that were there before from those that the chain added.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, messages_from_dict, messages_to_dict
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig, RunnableLambda, RunnablePassthrough
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from aspire_guard.clearing import walker
from aspire_guard.clearing.known_values import KnownValues
from aspire_guard.clearing.memories import MemoryBefore
from aspire_guard.guard import AspireGuard
from aspire_guard.testing import ConstantEvaluator

THREAD: RunnableConfig = {"configurable": {"thread_id": "1"}}
REFUSING = ConstantEvaluator(confidence=0.0)


def set_to(owner: Any, name: str, value: Any) -> Callable[[pytest.MonkeyPatch], None]:
    """Return a function that takes a keeper out by another value in its place."""
    return lambda patch: patch.setattr(owner, name, value)


class OnePassage(BaseRetriever):
    """Returns one passage for any query."""

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        return [Document("The zanq keeps it. She sits in the office.")]


def keep(answer: str, input: dict[str, Any]) -> bool:
    """Tell whether a guard that rejects an answer leaves a chain's input in its output as it was."""
    chain: Any = RunnableLambda(lambda given: {**given, "answer": answer})
    output = AspireGuard(chain, evaluator=REFUSING).invoke({**input, "question": "Where?"})
    return {name: output[name] for name in input} == input


def keep_own_object() -> bool:
    """Tell whether an object of the caller's stays under another key."""
    own = SimpleNamespace(text="zanq")
    chain: Any = RunnableLambda(lambda given: {"profile": given["me"], "answer": "zanq"})
    output = AspireGuard(chain, evaluator=REFUSING).invoke({"question": "Where?", "me": own})
    return output["profile"] is own


@RunnableLambda
def pass_through_json(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state with equal messages that are other objects, as a store does."""
    return {"messages": messages_from_dict(messages_to_dict(state["messages"]))}


def keep_history() -> bool:
    """Tell whether the rest of a trimmed conversation keeps a turn that says what is rejected now."""
    earlier = AIMessage("The zanq.", id="2")
    chain: Any = RunnableLambda(
        lambda given: {"messages": [*given["messages"][1:], AIMessage("The zanq.")]}
    )
    messages = [HumanMessage("Who?"), earlier.model_copy(), HumanMessage("Where?")]
    output = AspireGuard(chain | pass_through_json, evaluator=REFUSING).invoke(
        {"messages": messages}
    )
    return bool(output["messages"][0] == earlier)


def keep_passage() -> bool:
    chain: Any = RunnablePassthrough.assign(
        context=RunnableLambda(lambda given: given["question"]) | OnePassage()
    ).assign(answer=lambda given: "The zanq keeps it.")
    output = AspireGuard(chain, evaluator=REFUSING).invoke({"question": "Where?"})
    return bool(output["context"][0].page_content == "The zanq keeps it. She sits in the office.")


def keep_earlier_turn() -> bool:
    """Tell whether a memory keeps a released turn that holds the words of an answer rejected later."""
    answers = iter(["The zanq. She sits in the office.", "The zanq."])

    def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(next(answers))]}

    builder = StateGraph(MessagesState).add_node("answer", answer).add_edge(START, "answer")
    graph: Any = builder.compile(checkpointer=InMemorySaver())
    evaluator = ConstantEvaluator(lambda exchange: 0.1 if exchange.answer == "The zanq." else 0.9)
    guard = AspireGuard(graph, evaluator=evaluator)
    for question in ("first?", "second?"):
        guard.invoke({"messages": [HumanMessage(question)]}, THREAD)
    return "She sits in the office." in str(graph.get_state(THREAD).values)


# Values that stay although they hold words of the rejected answer. Each tells whether the value is as it was.
KEPT: dict[str, Callable[[], bool]] = {
    "text of the input": lambda: keep("en", {"user_language": "en"}),
    "object of the input": keep_own_object,
    "conversation of the input": keep_history,
    "retrieved passage": keep_passage,
    "earlier turn in a memory": keep_earlier_turn,
}
# What keeps these values, and the values that are lost without it.
KEEPERS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], set[str]]] = {
    "equal values at equal places": (
        set_to(walker, "find_child_places", lambda places, key: ()),
        {"text of the input"},
    ),
    "values that are the caller's own": (
        set_to(KnownValues, "_snapshots_by_id", {}),
        {"object of the input"},
    ),
    "known values": (
        set_to(KnownValues, "is_known", lambda *arguments: False),
        {"text of the input", "object of the input"},
    ),
    "earlier conversations": (
        set_to(KnownValues, "count_known_items", lambda *arguments: 0),
        {"conversation of the input"},
    ),
    "known texts": (set_to(KnownValues, "texts", frozenset()), {"retrieved passage"}),
    "memories before the run": (
        set_to(MemoryBefore, "snapshot", None),
        {"earlier turn in a memory"},
    ),
}


@cache
def find_losses(keeper: str | None) -> set[str]:
    """Return the values that are lost if a keeper, or None, is taken out."""
    with pytest.MonkeyPatch.context() as patch:
        if keeper is not None:
            KEEPERS[keeper][0](patch)
        return {name for name, is_kept in KEPT.items() if not is_kept()}


@pytest.mark.parametrize("keeper", KEEPERS)
def test_without_its_keeper_a_value_is_lost(keeper: str) -> None:
    """What the caller passed in, retrieved or said before stays. Without this keeper the values that it is for go."""
    assert find_losses(None) == set()
    assert KEEPERS[keeper][1] <= find_losses(keeper)
