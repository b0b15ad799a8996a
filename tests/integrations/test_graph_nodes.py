"""Nodes for graphs: a guarded answer, and a pause for a person's decision."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, RemoveMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send, interrupt

from aspire_guard.errors import ReviewConflictError
from aspire_guard.exchange import Exchange
from aspire_guard.guard import AspireGuard
from aspire_guard.review import Decision, ReviewQueue
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.routing.routes import Abstain, HumanReview
from aspire_guard.testing import ConstantEvaluator, ScriptedChatModel
from aspire_integrations.graph_nodes import GuardedState, answer_node, review_node
from aspire_integrations.graph_resume import aresume_decided, resume_decided
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
    assert result["aspire_review"] == {}


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


def make_queued_graph(queue: ReviewQueue, saver: InMemorySaver) -> Any:
    policy = RoutingPolicy(otherwise=HumanReview(InterruptReview(queue)))
    guard = AspireGuard(
        ScriptedChatModel(script_by_question), evaluator=ConstantEvaluator(0.25), policy=policy
    )
    builder = StateGraph(GuardedState)
    builder.add_node("answer", answer_node(guard)).add_node("review", review_node)
    builder.add_edge(START, "answer").add_edge("answer", "review")
    return builder.compile(checkpointer=saver)


def resume(graph: Any, queue: ReviewQueue, way: str) -> list[str]:
    if way == "sync":
        return resume_decided(graph, queue)
    return asyncio.run(aresume_decided(graph, queue))


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_decision_in_the_queue_resumes_the_graph(tmp_path: Path, way: str) -> None:
    """Each thread goes on with the decision on its own ticket, once, and the decision stands then."""
    queue = ReviewQueue(f"sqlite:///{tmp_path / 'reviews.db'}")
    graph = make_queued_graph(queue, InMemorySaver())
    threads: list[Any] = [{"configurable": {"thread_id": str(number)}} for number in range(3)]
    for thread in threads:
        result = graph.invoke(ASKED, thread)
        (paused,) = result["__interrupt__"]
        assert paused.value["ticket"] in [ticket.id for ticket in queue.list()]
    first, second, third = queue.list()
    assert [ticket.item.thread_id for ticket in (first, second, third)] == ["0", "1", "2"]
    assert resume(graph, queue, way) == []
    queue.decide(first.id, Decision(action="edit", text="There.", reviewer="bea"))
    queue.withdraw(third.id)
    assert resume(graph, queue, way) == [first.id, third.id]
    assert resume(graph, queue, way) == []
    said = [graph.get_state(thread).values["messages"][-1].text for thread in threads]
    assert said == ["There.", ABSTENTION, ABSTENTION]
    assert [bool(graph.get_state(thread).interrupts) for thread in threads] == [False, True, False]
    with pytest.raises(ReviewConflictError, match="delivered"):
        queue.undo(first.id, "bea")


def test_a_decision_that_was_delivered_to_a_killed_process_resumes_the_graph(
    tmp_path: Path,
) -> None:
    """The graph's own state tells whether it still waits."""
    queue = ReviewQueue(f"sqlite:///{tmp_path / 'reviews.db'}")
    graph = make_queued_graph(queue, InMemorySaver())
    graph.invoke(ASKED, THREAD)
    (ticket,) = queue.list()
    queue.decide(ticket.id, Decision(action="approve", reviewer="bea"))
    queue.wait(ticket.id, timeout=0)
    assert resume_decided(graph, queue) == [ticket.id]
    assert graph.get_state(THREAD).values["messages"][-1].text == "Where? zanq"


def test_a_thread_pauses_for_an_answer_once(tmp_path: Path) -> None:
    """The same answer to the same question in the same thread takes the decision that was made."""
    queue = ReviewQueue(f"sqlite:///{tmp_path / 'reviews.db'}")
    graph = make_queued_graph(queue, InMemorySaver())
    graph.invoke(ASKED, THREAD)
    (ticket,) = queue.list()
    queue.decide(ticket.id, Decision(action="approve", reviewer="bea"))
    resume_decided(graph, queue)
    result = graph.invoke({"messages": [HumanMessage("Where?")]}, THREAD)
    assert "__interrupt__" not in result
    assert result["messages"][-1].text == "Where? zanq"


def script_by_question(messages: list[BaseMessage]) -> AIMessage:
    return AIMessage(f"{messages[-1].text} zanq")


def make_guard(confidence: Any = 0.25) -> AspireGuard:
    model = ScriptedChatModel(script_by_question)
    return AspireGuard(model, evaluator=ConstantEvaluator(confidence), policy=PAUSE)


def decide_all(graph: Any, way: str, decisions: list[Any]) -> tuple[list[str], dict[str, Any]]:
    """Decide on each answer that the graph pauses for, and return these answers and the last result."""
    answers: list[str] = []
    result: dict[str, Any] = {}
    for decision in decisions:
        (paused,) = graph.get_state(THREAD).interrupts
        answers.append(paused.value["answer"])
        result = run(graph, Command(resume=decision), way)
    return answers, result


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("fan_out", ["edges", "send"])
def test_several_nodes_answer_in_one_step(fan_out: str, way: str) -> None:
    """Each answer waits for its own decision, whether nodes stand side by side or run under `Send`."""
    builder = StateGraph(GuardedState)
    builder.add_node("review", review_node)
    if fan_out == "send":
        builder.add_node("answer", answer_node(make_guard()))
        asked = [{"messages": [HumanMessage(question)]} for question in ("One?", "Two?")]
        builder.add_conditional_edges(START, lambda state: [Send("answer", one) for one in asked])
        builder.add_edge("answer", "review")
    else:
        for name in ("first", "second"):
            builder.add_node(name, answer_node(make_guard()))
            builder.add_edge(START, name)
        builder.add_edge(["first", "second"], "review")
    graph = builder.compile(checkpointer=InMemorySaver())
    run(graph, ASKED, way)
    approved, rejected = {"action": "approve"}, {"action": "reject"}
    answers, result = decide_all(graph, way, [approved, rejected])
    expected = ["One? zanq", "Two? zanq"] if fan_out == "send" else ["Where? zanq"] * 2
    assert answers == expected
    said = [message.text for message in result["messages"] if isinstance(message, AIMessage)]
    assert said == [expected[0], ABSTENTION]
    assert result["aspire_review"] == {}


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("second", ["accepted", "reviewed"])
def test_a_second_question_loses_no_review(second: str, way: str) -> None:
    """The answer to the first question still waits, and each decision reaches its own message."""
    accepts_two = make_guard(lambda exchange: float("Two" in exchange.question))
    graph = make_graph(accepts_two if second == "accepted" else make_guard())
    run(graph, {"messages": [HumanMessage("One?")]}, way)
    run(graph, {"messages": [HumanMessage("Two?")]}, way)
    decisions = [{"action": "approve"}, {"action": "respond", "text": "Ask the desk."}]
    count = 1 if second == "accepted" else 2
    answers, result = decide_all(graph, way, decisions[:count])
    assert answers == ["One? zanq", "Two? zanq"][:count]
    last = "Two? zanq" if second == "accepted" else "Ask the desk."
    assert [message.text for message in result["messages"]] == ["One?", "One? zanq", "Two?", last]
    assert result["aspire_review"] == {}


@pytest.mark.parametrize(("action", "released"), [("approve", ["One? zanq"]), ("reject", [])])
def test_a_decision_on_a_message_that_was_removed(action: str, released: list[str]) -> None:
    """An approved answer comes back, and a rejected one does not."""
    graph = make_graph(make_guard())
    run(graph, {"messages": [HumanMessage("One?")]}, "sync")
    messages = graph.get_state(THREAD).values["messages"]
    graph.update_state(THREAD, {"messages": [RemoveMessage(messages[-1].id)]}, as_node="answer")
    result = run(graph, Command(resume={"action": action}), "sync")
    assert [message.text for message in result["messages"]] == ["One?", *released]


@pytest.mark.parametrize("way", ["sync", "async"])
def test_an_interrupt_that_a_fallback_swallows_still_pauses_the_graph(way: str) -> None:
    """A fallback around a sequence with a guard takes the interrupt for a failure, and the node does not."""
    asking: Runnable[Any, Any] = RunnableLambda(lambda messages: str(interrupt("Which island?")))
    guard = AspireGuard(asking, evaluator=ConstantEvaluator(1.0))
    sequence: Runnable[Any, Any] = RunnablePassthrough() | guard
    node = answer_node(sequence.with_fallbacks([RunnableLambda(lambda messages: "never")]))
    builder = StateGraph(GuardedState).add_node("answer", node).add_edge(START, "answer")
    graph = builder.compile(checkpointer=InMemorySaver())
    assert run(graph, ASKED, way)["__interrupt__"][0].value == "Which island?"
    assert run(graph, Command(resume="Pemba."), way)["messages"][-1].text == "Pemba."
