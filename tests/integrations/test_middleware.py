"""The guard inside an agent: real `create_agent` graphs, real checkpoints."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command
from pydantic import BaseModel, ValidationError

from aspire_guard.errors import EvaluationError
from aspire_guard.exchange import Exchange
from aspire_guard.guard import AspireGuard
from aspire_guard.review import ReviewQueue
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.routing.routes import Custom, Fallback, HumanReview
from aspire_guard.testing import ConstantEvaluator, ScriptedChatModel
from aspire_integrations.graph_nodes import GuardedState
from aspire_integrations.graph_review import InterruptReview
from aspire_integrations.middleware import AspireGuardMiddleware

ANSWER = "zanq ziwx barq"
ABSTENTION = "I can't answer this question."
TRUSTING = ConstantEvaluator(confidence=1.0)
REFUSING = ConstantEvaluator(confidence=0.0)
ASKED = {"messages": [HumanMessage("Where?")]}
SYNC_AND_ASYNC = pytest.mark.parametrize("way", ["sync", "async"])

pytestmark = pytest.mark.filterwarnings(
    "ignore:The v3 streaming protocol on Pregel is experimental"
)


class Place(BaseModel):
    """A place."""

    name: str


@tool
def look_up(place: str) -> str:
    """Look a place up."""
    return "It is an island."


class Script:
    """Calls a tool first and answers then; counts what is generated."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def __call__(self, messages: list[BaseMessage]) -> AIMessage:
        if isinstance(messages[-1], ToolMessage):
            self.calls["answer"] += 1
            return AIMessage(ANSWER)
        self.calls["tool"] += 1
        return AIMessage("", tool_calls=[{"name": "look_up", "args": {"place": "?"}, "id": "1"}])


def agent(
    evaluator: Any, policy: RoutingPolicy | None = None, says: Any = None, **options: Any
) -> Any:
    guard = AspireGuardMiddleware(evaluator=evaluator, policy=policy)
    return create_agent(
        ScriptedChatModel(says or Script(), streaming=True),
        [look_up],
        middleware=[guard],
        **options,
    )


def run(agent: Any, asked: Any, config: Any = None, *, way: str) -> dict[str, Any]:
    result: dict[str, Any] = (
        asyncio.run(agent.ainvoke(asked, config)) if way == "async" else agent.invoke(asked, config)
    )
    return result


def texts(result: dict[str, Any]) -> list[str]:
    return [str(message.text) for message in result["messages"]]


def thread(name: str = "1") -> dict[str, Any]:
    return {"configurable": {"thread_id": name}}


@SYNC_AND_ASYNC
def test_an_accepted_answer_is_released(way: str) -> None:
    """The agent calls its tool and answers as it would; the last message tells the verdict."""
    result = run(agent(TRUSTING), ASKED, way=way)
    assert texts(result) == ["Where?", "", "It is an island.", ANSWER]
    assert result["messages"][-1].response_metadata["aspire_guard"]["accepted"] is True
    assert "aspire_guard" not in result["messages"][1].response_metadata


@SYNC_AND_ASYNC
def test_a_rejected_answer_is_nowhere(way: str) -> None:
    """Not in the result, in the state, nor in any checkpoint; the abstention has the message's place."""
    saver = InMemorySaver()
    guarded = agent(REFUSING, checkpointer=saver)
    result = run(guarded, ASKED, thread(), way=way)
    assert texts(result) == ["Where?", "", "It is an island.", ABSTENTION]
    assert "aspire_review" not in result
    everything = str(
        [result, guarded.get_state(thread()), list(guarded.get_state_history(thread()))]
    )
    everything += str([saver.storage, saver.writes, saver.blobs])
    assert not any(token in everything for token in ANSWER.split())


def test_the_evaluator_sees_question_context_and_answer() -> None:
    """The last question, what the tools returned since, and the answer; of the system prompt nothing."""
    seen: list[Exchange] = []

    def note(exchange: Exchange) -> float:
        seen.append(exchange)
        return 1.0

    guarded = agent(
        ConstantEvaluator(note), system_prompt="Be brief.", checkpointer=InMemorySaver()
    )
    guarded.invoke(ASKED, thread())
    guarded.invoke({"messages": [HumanMessage("And where else?")]}, thread())
    assert seen == [
        Exchange(question="Where?", context="It is an island.", answer=ANSWER),
        Exchange(question="And where else?", context="It is an island.", answer=ANSWER),
    ]


@pytest.mark.parametrize("mode", ["messages", "updates", "values", "debug"])
@SYNC_AND_ASYNC
def test_a_rejected_answer_is_not_streamed(mode: str, way: str) -> None:
    """Neither its tokens nor the message; the abstention is."""

    async def chunks() -> list[Any]:
        return [chunk async for chunk in agent(REFUSING).astream(ASKED, stream_mode=mode)]

    shown = str(
        asyncio.run(chunks())
        if way == "async"
        else list(agent(REFUSING).stream(ASKED, stream_mode=mode))
    )
    assert not any(token in shown for token in ANSWER.split())
    assert ABSTENTION in shown


def test_a_rejected_answer_is_in_no_events() -> None:
    """Not on astream_events v2, nor on stream_events v3."""

    async def events() -> list[Any]:
        return [event async for event in agent(REFUSING).astream_events(ASKED, version="v2")]

    for shown in (
        str(asyncio.run(events())),
        str(list(agent(REFUSING).stream_events(ASKED, version="v3"))),
    ):
        assert not any(token in shown for token in ANSWER.split())
        assert ABSTENTION in shown


@SYNC_AND_ASYNC
def test_a_fallback_answers_in_its_place(way: str) -> None:
    """It is given the model's messages, its answer is scored too, and has the id of the model's message."""
    given: list[list[str]] = []

    def better(messages: list[BaseMessage]) -> str:
        given.append([message.type for message in messages])
        return "Pemba."

    policy = RoutingPolicy(otherwise=Fallback(ScriptedChatModel(better)))
    trusts_pemba = ConstantEvaluator(lambda exchange: float(exchange.answer == "Pemba."))
    message = run(agent(trusts_pemba, policy, system_prompt="Be brief."), ASKED, way=way)[
        "messages"
    ][-1]
    assert message.content == "Pemba."
    assert message.response_metadata["aspire_guard"]["route"] == "fallback"
    assert given == [["system", "human", "ai", "tool"]]


@pytest.mark.parametrize("strategy", [ToolStrategy(Place), ProviderStrategy(Place)])
def test_structured_output_passes(strategy: Any) -> None:
    """It is not judged, and comes out as it went in."""
    says = (
        AIMessage("", tool_calls=[{"name": "Place", "args": {"name": "Pemba"}, "id": "1"}])
        if isinstance(strategy, ToolStrategy)
        else AIMessage('{"name": "Pemba"}')
    )
    result = agent(REFUSING, says=says, response_format=strategy).invoke(ASKED)
    assert result["structured_response"] == Place(name="Pemba")


def test_a_failing_evaluator_holds_the_answer_back_or_raises() -> None:
    """As the policy says."""
    broken = ConstantEvaluator(float("nan"))
    assert texts(agent(broken).invoke(ASKED))[-1] == ABSTENTION
    with pytest.raises(EvaluationError):
        agent(broken, RoutingPolicy(on_error="raise")).invoke(ASKED)


def test_the_models_error_is_the_agents() -> None:
    """A model that raises is not an answer of low confidence."""

    def down(messages: list[BaseMessage]) -> AIMessage:
        raise ConnectionError("model is down")

    with pytest.raises(ConnectionError, match="model is down"):
        agent(TRUSTING, says=down).invoke(ASKED)


PAUSE = RoutingPolicy(otherwise=HumanReview(InterruptReview()))


@SYNC_AND_ASYNC
@pytest.mark.parametrize(
    ("decision", "said", "route", "released"),
    [
        ({"action": "approve"}, ANSWER, "human_review", True),
        ({"action": "edit", "text": "Pemba."}, "Pemba.", "human_review", True),
        ({"action": "respond", "text": "Ask the desk."}, "Ask the desk.", "human_review", True),
        ({"action": "reject"}, ABSTENTION, "abstain", False),
    ],
)
def test_a_review_pauses_the_graph(
    way: str, decision: Any, said: str, route: str, released: bool
) -> None:
    """The person sees the exchange and decides; on resume nothing is generated or scored again."""
    script, scored = Script(), Counter[str]()

    def doubt(exchange: Exchange) -> float:
        scored[exchange.answer] += 1
        return 0.25

    guarded = agent(ConstantEvaluator(doubt), PAUSE, script, checkpointer=InMemorySaver())
    paused = run(guarded, ASKED, thread(), way=way)
    (asked,) = paused["__interrupt__"]
    assert (asked.value["question"], asked.value["answer"], asked.value["confidence"]) == (
        "Where?",
        ANSWER,
        0.25,
    )
    assert asked.value["context"] == "It is an island."
    assert texts(paused)[-1] == ABSTENTION

    result = run(guarded, Command(resume=decision), thread(), way=way)
    assert texts(result) == ["Where?", "", "It is an island.", said]
    message = result["messages"][-1]
    assert message.id == paused["messages"][-1].id
    verdict = message.response_metadata["aspire_guard"]
    assert (verdict["route"], verdict["released"], verdict["confidence"]) == (route, released, 0.25)
    assert (script.calls["answer"], scored[ANSWER]) == (1, 1)
    assert guarded.get_state(thread()).values["aspire_review"] is None


@SYNC_AND_ASYNC
def test_a_route_behind_the_review_may_give_a_text(way: str) -> None:
    """The graph pauses all the same, and the text stands when the person rejects the answer."""
    policy = RoutingPolicy(
        otherwise=[
            HumanReview(InterruptReview()),
            Custom(lambda asked, said, verdict: "Ask the desk."),
        ]
    )
    guarded = agent(REFUSING, policy, checkpointer=InMemorySaver())
    assert run(guarded, ASKED, thread(), way=way)["__interrupt__"][0].value["answer"] == ANSWER
    result = run(guarded, Command(resume={"action": "reject"}), thread(), way=way)
    assert texts(result)[-1] == "Ask the desk."


def test_a_decision_has_to_be_one() -> None:
    """What is no decision is refused, and the graph waits on."""
    guarded = agent(REFUSING, PAUSE, checkpointer=InMemorySaver())
    guarded.invoke(ASKED, thread())
    for wrong in ({"action": "maybe"}, {"action": "edit"}, {"action": "approve", "text": "Pemba."}):
        with pytest.raises(ValidationError):
            guarded.invoke(Command(resume=wrong), thread())
    assert texts(guarded.invoke(Command(resume={"action": "approve"}), thread()))[-1] == ANSWER


def test_without_a_checkpointer_the_review_is_a_ticket(tmp_path: Path) -> None:
    """No graph can be paused then: the queue has the answer, the user the abstention with the ticket's id."""
    queue = ReviewQueue(f"sqlite:///{tmp_path / 'reviews.db'}")
    message = agent(REFUSING, RoutingPolicy(otherwise=HumanReview(InterruptReview(queue)))).invoke(
        ASKED
    )["messages"][-1]
    assert message.content == ABSTENTION
    (ticket,) = queue.list()
    assert message.response_metadata["aspire_guard"]["ticket"] == ticket.id
    assert ticket.item.answer == ANSWER


def test_without_checkpointer_and_queue_the_verdict_tells_the_way_out() -> None:
    """The answer is withheld, and the step says what was expected."""
    verdict = agent(REFUSING, PAUSE).invoke(ASKED)["messages"][-1].response_metadata["aspire_guard"]
    assert (verdict["route"], verdict["released"]) == ("abstain", False)
    assert "expected a graph with a checkpointer to pause, found none" in verdict["error"]


@SYNC_AND_ASYNC
def test_a_guard_with_fallbacks_does_not_swallow_an_interrupt(way: str) -> None:
    """A guarded agent that pauses is no failed one: the graph around it is paused, and the fallback never asked."""
    asked_for: list[Any] = []

    def other(input: Any) -> Any:
        asked_for.append(input)
        return {"messages": [AIMessage("never")]}

    inner = AspireGuard(agent(REFUSING, PAUSE), evaluator=TRUSTING)
    node: Runnable[Any, Any] = inner.with_fallbacks([RunnableLambda(other)])
    graph: Any = StateGraph(GuardedState).add_node("agent", node).add_edge(START, "agent")
    graph = graph.compile(checkpointer=InMemorySaver())
    assert run(graph, ASKED, thread(), way=way)["__interrupt__"][0].value["answer"] == ANSWER
    assert texts(run(graph, Command(resume={"action": "approve"}), thread(), way=way))[-1] == ANSWER
    assert asked_for == []
