"""Conversations of random shape: a memory keeps what it held before, and nothing of a rejected answer."""

from __future__ import annotations

import pickle
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from aspire_guard import AspireGuard
from aspire_guard.clearing import KnownValues, MemoryClearing, MemoryFinder, take_snapshot
from aspire_guard.testing import ConstantEvaluator

MESSAGE = "I can't answer this question."
SECRET = "zanq ziwx barq"
CONFIG: RunnableConfig = {"configurable": {"session_id": "1", "thread_id": "1"}}

pytestmark = [
    pytest.mark.filterwarnings("ignore:RunnableWithMessageHistory is deprecated"),
    pytest.mark.filterwarnings("ignore:The class `InMemoryChatMessageHistory` was deprecated"),
]

earlier_texts = st.sampled_from(["Who?", "Ada.", SECRET, f"No: {SECRET}.", "The key is there."])
# A quotation of an earlier turn would stay.
added_texts = st.sampled_from(["Who?", "Eve.", SECRET, f"Yes, {SECRET}!", "The key hangs there."])


def make_message(kind: int, text: str) -> BaseMessage:
    call = {"name": "look", "args": {"place": text}, "id": "1"}
    messages: list[Any] = [
        lambda: HumanMessage(text),
        lambda: AIMessage(text),
        lambda: AIMessage("", tool_calls=[call]),
        lambda: ToolMessage(text, tool_call_id="1", artifact=[text]),
        lambda: AIMessage([{"type": "text", "text": text}], additional_kwargs={"reasoning": text}),
    ]
    message: BaseMessage = messages[kind]()
    return message


def make_turns(texts: st.SearchStrategy[str]) -> st.SearchStrategy[list[BaseMessage]]:
    return st.lists(st.builds(make_message, st.integers(0, 4), texts), max_size=4)


histories: dict[str, InMemoryChatMessageHistory] = {}


@cache
def make_chain() -> Any:
    return RunnableWithMessageHistory(
        RunnableLambda(lambda messages: messages), lambda session_id: histories[session_id]
    )


@settings(max_examples=2_000, database=None)
@given(make_turns(earlier_texts), make_turns(added_texts))
def test_a_history_keeps_earlier_turns_and_no_secret(
    earlier: list[BaseMessage], added: list[BaseMessage]
) -> None:
    """The messages before the turn stay byte for byte, and the messages of the turn repeat nothing."""
    history = histories["1"] = InMemoryChatMessageHistory(messages=list(earlier))
    before = pickle.dumps(earlier)
    memories = MemoryFinder().open(make_chain(), CONFIG)
    question = HumanMessage("Where?")
    history.add_messages([question, *added, AIMessage(SECRET)])
    known = KnownValues((take_snapshot([question]),))
    MemoryClearing(memories, (SECRET,), MESSAGE, known).run()
    count = len(earlier)
    assert pickle.dumps(history.messages[:count]) == before
    assert SECRET not in repr(history.messages[count:])
    assert history.messages[-1].text == MESSAGE
    assert not memories[0].rejected


answers = st.sampled_from(["Ada.", f"No: {SECRET}.", SECRET, "Ada. She has the zanq."])


@settings(max_examples=60, database=None)
@given(st.lists(st.tuples(answers, st.booleans()), min_size=1, max_size=4))
def test_a_conversation_with_a_graph_repeats_no_secret(turns: list[tuple[str, bool]]) -> None:
    """However turns are accepted and rejected, each output and state has the released texts in their order."""
    said = iter(text for text, _ in turns)
    builder = StateGraph(MessagesState)
    builder.add_node("answer", lambda state: {"messages": [AIMessage(next(said))]})
    graph: Any = builder.add_edge(START, "answer").compile(checkpointer=InMemorySaver())
    accepted = iter(is_accepted for _, is_accepted in turns)
    evaluator = ConstantEvaluator(lambda exchange: 0.9 if next(accepted) else 0.1)
    guard = AspireGuard(graph, evaluator=evaluator)
    expected: list[str] = []
    for index, (text, is_accepted) in enumerate(turns):
        question = f"question {index}"
        output = guard.invoke({"messages": [HumanMessage(question)]}, CONFIG)
        expected += [question, text if is_accepted else MESSAGE]
        state = graph.get_state(CONFIG).values
        assert [message.text for message in output["messages"]] == expected
        assert [message.text for message in state["messages"]] == expected
