"""Nodes for graphs: a guarded answer, and a pause for a person's decision."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command

from aspire_guard.exchange import Exchange
from aspire_guard.guard import AspireGuard
from aspire_guard.review import ReviewQueue
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.routing.routes import Abstain, HumanReview
from aspire_guard.testing import ConstantEvaluator, ScriptedChatModel
from aspire_integrations.graph_nodes import GuardedState, answer_node, review_node
from aspire_integrations.graph_review import InterruptReview

ANSWER = "zanq ziwx barq"
ABSTENTION = "I can't answer this question."
PAUSE = RoutingPolicy(otherwise=HumanReview(InterruptReview()))
ASKED = {"messages": [HumanMessage("Where?")]}
THREAD: Any = {"configurable": {"thread_id": "1"}}

# The kinds of output that a guarded chain may have.
KINDS: dict[str, Runnable[Any, Any]] = {
    "message": RunnablePassthrough(),
    "text": StrOutputParser(),
    "dict": RunnableLambda(lambda message: {"answer": message.text, "context": "It is an island."}),
}


def make_graph(guard: Runnable[Any, Any], checkpointer: Any = None) -> Any:
    builder = StateGraph(GuardedState)
    builder.add_node("answer", answer_node(guard))
    builder.add_node("review", review_node)
    builder.add_edge(START, "answer")
    builder.add_edge("answer", "review")
    return builder.compile(checkpointer=checkpointer or InMemorySaver())


def run(graph: Any, asked: Any, way: str) -> dict[str, Any]:
    is_async = way == "async"
    output = asyncio.run(graph.ainvoke(asked, THREAD)) if is_async else graph.invoke(asked, THREAD)
    return dict(output)


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_accepted_answer_is_not_reviewed(kind: str, way: str) -> None:
    """For each kind of output, the state gets a message, and the graph does not pause."""
    chain = ScriptedChatModel(ANSWER) | KINDS[kind]
    guard = AspireGuard(chain, evaluator=ConstantEvaluator(1.0), policy=PAUSE)
    result = run(make_graph(guard), ASKED, way)
    assert [message.text for message in result["messages"]] == ["Where?", ANSWER]
    assert result["aspire_review"] is None


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize(
    ("kind", "decision", "answer"),
    [
        ("message", {"action": "approve"}, ANSWER),
        ("text", {"action": "edit", "text": "Pemba."}, "Pemba."),
        ("dict", {"action": "respond", "text": "Ask the desk."}, "Ask the desk."),
        ("dict", {"action": "reject"}, ABSTENTION),
    ],
)
def test_one_generation_and_one_scoring_over_a_resume(
    kind: str, decision: Any, answer: str, way: str
) -> None:
    """A person decides on the answer that they saw, though the model would give another answer by now."""
    calls = Counter[str]()

    def another_each_time(messages: list[BaseMessage]) -> AIMessage:
        calls["generate"] += 1
        return AIMessage(ANSWER if calls["generate"] == 1 else "something else")

    def doubt(exchange: Exchange) -> float:
        calls["score"] += 1
        return 0.25

    chain = ScriptedChatModel(another_each_time) | KINDS[kind]
    guard = AspireGuard(chain, evaluator=ConstantEvaluator(doubt), policy=PAUSE)
    paused_graph = make_graph(guard)
    paused = run(paused_graph, ASKED, way)
    (asked,) = paused["__interrupt__"]
    assert asked.value["answer"] == ANSWER
    assert asked.response_schema["title"] == "Decision"
    result = run(paused_graph, Command(resume=decision), way)
    assert [message.text for message in result["messages"]] == ["Where?", answer]
    verdict = result["messages"][-1].response_metadata["aspire_guard"]
    assert verdict["released"] == (answer != ABSTENTION)
    assert verdict["confidence"] == 0.25
    assert calls == {"generate": 1, "score": 1}


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_guard_that_is_a_part_of_the_node_pauses_the_graph_too(way: str) -> None:
    """The guard may have a config of its own, fallbacks, or steps around it."""
    chain = ScriptedChatModel(ANSWER) | StrOutputParser()
    guard = AspireGuard(chain, evaluator=ConstantEvaluator(0.0), policy=PAUSE)
    parts: list[Runnable[Any, Any]] = [
        guard.with_config(tags=["guard"]),
        guard.with_fallbacks([RunnableLambda(lambda messages: "never")]),
        RunnablePassthrough() | guard | RunnablePassthrough(),
    ]
    for part in parts:
        paused = run(make_graph(part), ASKED, way)
        assert paused["__interrupt__"][0].value["answer"] == ANSWER


@pytest.mark.parametrize("way", ["sync", "async"])
def test_after_an_abstention_the_answer_is_nowhere(way: str) -> None:
    """The answer is in neither the result, the state nor a checkpoint."""
    saver = InMemorySaver()
    policy = RoutingPolicy(otherwise=Abstain("Pass."))
    guard = AspireGuard(ScriptedChatModel(ANSWER), evaluator=ConstantEvaluator(0.0), policy=policy)
    graph = make_graph(guard, saver)
    result = run(graph, ASKED, way)
    history = list(graph.get_state_history(THREAD))
    everything = str([result, history, saver.blobs, saver.writes])
    assert "Pass." in everything
    assert not any(token in everything for token in ANSWER.split())


def test_outside_a_graph_the_review_is_a_ticket(tmp_path: Path) -> None:
    """The same policy serves a guard that is called by itself."""
    queue = ReviewQueue(f"sqlite:///{tmp_path / 'reviews.db'}")
    policy = RoutingPolicy(otherwise=HumanReview(InterruptReview(queue)))
    guard = AspireGuard(ScriptedChatModel(ANSWER), evaluator=ConstantEvaluator(0.0), policy=policy)
    assert guard.judge("Where?").ticket == queue.list()[0].id
