"""The guard inside an agent: real `create_agent` graphs, real checkpoints."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from traceback import format_exception
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    ModelRetryMiddleware,
    PIIMiddleware,
    SummarizationMiddleware,
)
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command
from pydantic import BaseModel, ValidationError

from aspire_guard.errors import ChainError, EvaluationError, ExchangeError, InputError
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
    """A script that calls a tool first and then answers, and counts its calls."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def __call__(self, messages: list[BaseMessage]) -> AIMessage:
        if isinstance(messages[-1], ToolMessage):
            self.calls["answer"] += 1
            return AIMessage(ANSWER)
        self.calls["tool"] += 1
        return AIMessage("", tool_calls=[{"name": "look_up", "args": {"place": "?"}, "id": "1"}])


def make_agent(
    evaluator: Any, policy: RoutingPolicy | None = None, script: Any = None, **options: Any
) -> Any:
    model = ScriptedChatModel(script or Script(), streaming=True)
    guard = AspireGuardMiddleware(evaluator=evaluator, policy=policy)
    return create_agent(model, [look_up], middleware=[guard], **options)


def run(agent: Any, asked: Any, config: Any = None, *, way: str) -> dict[str, Any]:
    is_async = way == "async"
    output = asyncio.run(agent.ainvoke(asked, config)) if is_async else agent.invoke(asked, config)
    return dict(output)


def texts(result: dict[str, Any]) -> list[str]:
    return [str(message.text) for message in result["messages"]]


def thread(name: str = "1") -> dict[str, Any]:
    return {"configurable": {"thread_id": name}}


@SYNC_AND_ASYNC
def test_an_accepted_answer_is_released(way: str) -> None:
    """The agent calls its tool and answers as without a guard. The last message has the verdict."""
    result = run(make_agent(TRUSTING), ASKED, way=way)
    assert texts(result) == ["Where?", "", "It is an island.", ANSWER]
    assert result["messages"][-1].response_metadata["aspire_guard"]["accepted"] is True
    assert "aspire_guard" not in result["messages"][1].response_metadata


@SYNC_AND_ASYNC
def test_a_rejected_answer_is_nowhere(way: str) -> None:
    """The answer is in neither the result, the state nor any checkpoint. The abstention replaces the message."""
    saver = InMemorySaver()
    guarded = make_agent(REFUSING, checkpointer=saver)
    result = run(guarded, ASKED, thread(), way=way)
    assert texts(result) == ["Where?", "", "It is an island.", ABSTENTION]
    assert "aspire_review" not in result
    history = list(guarded.get_state_history(thread()))
    everything = str([result, guarded.get_state(thread()), history])
    everything += str([saver.storage, saver.writes, saver.blobs])
    assert not any(token in everything for token in ANSWER.split())


def test_the_evaluator_sees_question_context_and_answer() -> None:
    """It sees the last question, the output of the tools since then, and the answer, but not the system prompt."""
    seen: list[Exchange] = []

    def note(exchange: Exchange) -> float:
        seen.append(exchange)
        return 1.0

    saver = InMemorySaver()
    guarded = make_agent(ConstantEvaluator(note), system_prompt="Be brief.", checkpointer=saver)
    guarded.invoke(ASKED, thread())
    guarded.invoke({"messages": [HumanMessage("And where else?")]}, thread())
    assert seen == [
        Exchange(question="Where?", context="It is an island.", answer=ANSWER),
        Exchange(question="And where else?", context="It is an island.", answer=ANSWER),
    ]


def note_exchanges(seen: list[Exchange]) -> ConstantEvaluator:
    """Make an evaluator that notes what it judges, and trusts it."""

    def note(exchange: Exchange) -> float:
        seen.append(exchange)
        return 1.0

    return ConstantEvaluator(note)


class WorkingScript(Script):
    """A script that calls the tool three times and then answers."""

    def __call__(self, messages: list[BaseMessage]) -> AIMessage:
        self.calls["all"] += 1
        if self.calls["all"] > 3:
            return AIMessage(ANSWER)
        call = {"name": "look_up", "args": {"place": "?"}, "id": str(self.calls["all"])}
        return AIMessage("", tool_calls=[call])


@SYNC_AND_ASYNC
def test_a_summary_does_not_become_the_question(way: str) -> None:
    """The question is still judged after LangChain's middleware has put a summary in place of its message."""
    seen: list[Exchange] = []
    summary = SummarizationMiddleware(
        ScriptedChatModel("They asked for zanq."), trigger=("messages", 4), keep=("messages", 2)
    )
    guard = AspireGuardMiddleware(evaluator=note_exchanges(seen))
    orders: list[list[AgentMiddleware[Any, Any, Any]]] = [[guard, summary], [summary, guard]]
    for middleware in orders:
        model = ScriptedChatModel(WorkingScript())
        agent: Any = create_agent(model, [look_up], middleware=middleware)
        result = run(agent, ASKED, way=way)
        assert "zanq" in texts(result)[0]
        assert "Where?" not in texts(result)
        assert result["messages"][-1].response_metadata["aspire_guard"]["context"] == "tool"
    assert [exchange.question for exchange in seen] == ["Where?", "Where?"]
    assert all(exchange.context for exchange in seen)


IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/x.png"}}


@SYNC_AND_ASYNC
@pytest.mark.parametrize(
    "messages",
    [
        [HumanMessage([IMAGE])],
        [HumanMessage("Where?"), AIMessage("There."), HumanMessage([IMAGE])],
        [AIMessage("Where?", name="planner")],
    ],
    ids=["an image", "an image after another turn", "no human message"],
)
def test_a_turn_without_words_is_not_judged(messages: list[BaseMessage], way: str) -> None:
    """The agent does not fail, and the policy's `on_error` decides: by default the answer is withheld."""
    seen: list[Exchange] = []
    evaluator = note_exchanges(seen)
    message = run(make_agent(evaluator), {"messages": messages}, way=way)["messages"][-1]
    verdict = message.response_metadata["aspire_guard"]
    assert message.text == ABSTENTION
    assert "expected a question in words" in verdict["error"]
    assert seen == []
    with pytest.raises(ExchangeError, match="expected a question in words"):
        run(make_agent(evaluator, RoutingPolicy(on_error="raise")), {"messages": messages}, way=way)


def test_the_words_beside_an_image_are_the_question() -> None:
    """The words of the turn are the question, in the message of the image or in one before it."""
    seen: list[Exchange] = []
    text = {"type": "text", "text": "Where?"}
    for messages in (
        [HumanMessage([text, IMAGE])],
        [HumanMessage("Where?"), HumanMessage([IMAGE])],
    ):
        make_agent(note_exchanges(seen)).invoke({"messages": messages})
    assert [exchange.question for exchange in seen] == ["Where?", "Where?"]


def test_a_hand_off_note_is_no_context() -> None:
    """The note that a supervisor's tool leaves states no fact, so the answer is judged without a context."""
    seen: list[Exchange] = []
    call: Any = {"name": "transfer_to_desk", "args": {}, "id": "1"}
    note = ToolMessage("Successfully transferred to desk", tool_call_id="1")
    back = ToolMessage(
        "Back at the desk", tool_call_id="2", response_metadata={"__is_handoff_back": True}
    )
    messages = [HumanMessage("Where?"), AIMessage("", tool_calls=[call]), note, back]
    agent = make_agent(note_exchanges(seen), script=AIMessage(ANSWER))
    message = agent.invoke({"messages": messages})["messages"][-1]
    assert seen == [Exchange(question="Where?", answer=ANSWER)]
    assert message.response_metadata["aspire_guard"]["context"] is None


@pytest.mark.parametrize("mode", ["messages", "updates", "values", "debug"])
@SYNC_AND_ASYNC
def test_a_rejected_answer_is_not_streamed(mode: str, way: str) -> None:
    """Neither its tokens nor the message are streamed, but the abstention is."""

    guarded = make_agent(REFUSING)

    async def stream() -> list[Any]:
        return [chunk async for chunk in guarded.astream(ASKED, stream_mode=mode)]

    is_async = way == "async"
    chunks = asyncio.run(stream()) if is_async else list(guarded.stream(ASKED, stream_mode=mode))
    shown = str(chunks)
    assert not any(token in shown for token in ANSWER.split())
    assert ABSTENTION in shown


def test_a_rejected_answer_is_in_no_events() -> None:
    """The events come from astream_events v2 and from stream_events v3."""

    async def events() -> list[Any]:
        return [event async for event in make_agent(REFUSING).astream_events(ASKED, version="v2")]

    v2 = str(asyncio.run(events()))
    v3 = str(list(make_agent(REFUSING).stream_events(ASKED, version="v3")))
    for shown in (v2, v3):
        assert not any(token in shown for token in ANSWER.split())
        assert ABSTENTION in shown


@SYNC_AND_ASYNC
def test_a_fallback_answers_in_its_place(way: str) -> None:
    """The fallback gets the model's messages, and its answer is scored too."""
    given: list[list[str]] = []

    def better(messages: list[BaseMessage]) -> str:
        given.append([message.type for message in messages])
        return "Pemba."

    policy = RoutingPolicy(otherwise=Fallback(ScriptedChatModel(better)))
    trusts_pemba = ConstantEvaluator(lambda exchange: float(exchange.answer == "Pemba."))
    guarded = make_agent(trusts_pemba, policy, system_prompt="Be brief.")
    message = run(guarded, ASKED, way=way)["messages"][-1]
    assert message.content == "Pemba."
    assert message.response_metadata["aspire_guard"]["route"] == "fallback"
    assert given == [["system", "human", "ai", "tool"]]


@pytest.mark.parametrize("strategy", [ToolStrategy(Place), ProviderStrategy(Place)])
def test_structured_output_passes(strategy: Any) -> None:
    """It is not scored, and passes unchanged."""
    message = AIMessage('{"name": "Pemba"}')
    if isinstance(strategy, ToolStrategy):
        call: Any = {"name": "Place", "args": {"name": "Pemba"}, "id": "1"}
        message = AIMessage("", tool_calls=[call])
    result = make_agent(REFUSING, script=message, response_format=strategy).invoke(ASKED)
    assert result["structured_response"] == Place(name="Pemba")


def test_a_failing_evaluator_holds_the_answer_back_or_raises() -> None:
    """The policy decides which of the two."""
    broken = ConstantEvaluator(float("nan"))
    assert texts(make_agent(broken).invoke(ASKED))[-1] == ABSTENTION
    with pytest.raises(EvaluationError):
        make_agent(broken, RoutingPolicy(on_error="raise")).invoke(ASKED)


def test_the_models_error_is_the_agents() -> None:
    """A model that raises is not an answer of low confidence."""

    def down(messages: list[BaseMessage]) -> AIMessage:
        raise ConnectionError("model is down")

    with pytest.raises(ConnectionError, match="model is down"):
        make_agent(TRUSTING, script=down).invoke(ASKED)


@SYNC_AND_ASYNC
@pytest.mark.parametrize("original_errors", [False, True])
def test_an_error_after_the_model_has_answered_enters_the_graph_as_a_stand_in(
    original_errors: bool, way: str
) -> None:
    """No stream, state or error of the agent quotes the answer, unless a developer asks for the original."""

    class Parser(AgentMiddleware[Any, Any, Any]):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            return int(handler(request).result[-1].text)

        async def awrap_model_call(self, request: Any, handler: Any) -> Any:
            return int((await handler(request)).result[-1].text)

    guard = AspireGuardMiddleware(evaluator=TRUSTING, original_errors=original_errors)
    saver = InMemorySaver()
    model = ScriptedChatModel(lambda messages: ANSWER)
    agent: Any = create_agent(model, [], middleware=[guard, Parser()], checkpointer=saver)
    thread = {"configurable": {"thread_id": "1"}}
    with pytest.raises(ValueError if original_errors else ChainError) as raised:
        agent.invoke(ASKED, thread) if way == "sync" else asyncio.run(agent.ainvoke(ASKED, thread))
    shown = "".join([*format_exception(raised.value), str(saver.writes), str(saver.blobs)])
    assert ("zanq" in shown) is original_errors


def test_retries_inside_the_guard_are_judged() -> None:
    """A model that fails for good gives a message about its error, which is judged like an answer."""

    def down(messages: list[BaseMessage]) -> AIMessage:
        raise ConnectionError("model is down")

    def make(*middleware: Any) -> Any:
        return create_agent(ScriptedChatModel(down), [], middleware=list(middleware))

    guard = AspireGuardMiddleware(evaluator=REFUSING)
    retries = ModelRetryMiddleware(max_retries=1, on_failure="continue", initial_delay=0.0)
    assert texts(make(guard, retries).invoke(ASKED))[-1] == ABSTENTION
    assert "model is down" in texts(make(retries, guard).invoke(ASKED))[-1]


PAUSE = RoutingPolicy(otherwise=HumanReview(InterruptReview()))


@SYNC_AND_ASYNC
@pytest.mark.parametrize(
    ("decision", "answer", "route", "released"),
    [
        ({"action": "approve"}, ANSWER, "human_review", True),
        ({"action": "edit", "text": "Pemba."}, "Pemba.", "human_review", True),
        ({"action": "respond", "text": "Ask the desk."}, "Ask the desk.", "human_review", True),
        ({"action": "reject"}, ABSTENTION, "abstain", False),
    ],
)
def test_a_review_pauses_the_graph(
    way: str, decision: Any, answer: str, route: str, released: bool
) -> None:
    """The person sees the exchange and decides. On resume, nothing is generated or scored again."""
    script, scored = Script(), Counter[str]()

    def doubt(exchange: Exchange) -> float:
        scored[exchange.answer] += 1
        return 0.25

    guarded = make_agent(ConstantEvaluator(doubt), PAUSE, script, checkpointer=InMemorySaver())
    paused = run(guarded, ASKED, thread(), way=way)
    (asked,) = paused["__interrupt__"]
    assert asked.value["question"] == "Where?"
    assert asked.value["context"] == "It is an island."
    assert asked.value["answer"] == ANSWER
    assert asked.value["confidence"] == 0.25
    assert texts(paused)[-1] == ABSTENTION

    result = run(guarded, Command(resume=decision), thread(), way=way)
    assert texts(result) == ["Where?", "", "It is an island.", answer]
    message = result["messages"][-1]
    assert message.id == paused["messages"][-1].id
    verdict = message.response_metadata["aspire_guard"]
    assert verdict["route"] == route
    assert verdict["released"] == released
    assert verdict["confidence"] == 0.25
    assert script.calls["answer"] == 1
    assert scored[ANSWER] == 1
    assert guarded.get_state(thread()).values["aspire_review"] == {}


@SYNC_AND_ASYNC
def test_a_route_after_the_review_may_give_a_text(way: str) -> None:
    """The graph pauses nevertheless, and the text is released if the person rejects the answer."""
    desk = Custom(lambda asked, answer, verdict: "Ask the desk.")
    policy = RoutingPolicy(otherwise=[HumanReview(InterruptReview()), desk])
    guarded = make_agent(REFUSING, policy, checkpointer=InMemorySaver())
    assert run(guarded, ASKED, thread(), way=way)["__interrupt__"][0].value["answer"] == ANSWER
    result = run(guarded, Command(resume={"action": "reject"}), thread(), way=way)
    assert texts(result)[-1] == "Ask the desk."


def test_an_invalid_decision_is_refused() -> None:
    """The graph continues to wait for a valid decision."""
    guarded = make_agent(REFUSING, PAUSE, checkpointer=InMemorySaver())
    guarded.invoke(ASKED, thread())
    for wrong in ({"action": "maybe"}, {"action": "edit"}, {"action": "approve", "text": "Pemba."}):
        with pytest.raises(ValidationError):
            guarded.invoke(Command(resume=wrong), thread())
    assert texts(guarded.invoke(Command(resume={"action": "approve"}), thread()))[-1] == ANSWER


def test_without_a_checkpointer_the_review_is_a_ticket(tmp_path: Path) -> None:
    """The graph can't be paused, so the queue gets the answer, and the user the abstention with the ticket's id."""
    queue = ReviewQueue(f"sqlite:///{tmp_path / 'reviews.db'}")
    policy = RoutingPolicy(otherwise=HumanReview(InterruptReview(queue)))
    message = make_agent(REFUSING, policy).invoke(ASKED)["messages"][-1]
    assert message.content == ABSTENTION
    (ticket,) = queue.list()
    assert message.response_metadata["aspire_guard"]["ticket"] == ticket.id
    assert ticket.item.answer == ANSWER


def test_without_checkpointer_and_queue_the_verdict_tells_the_way_out() -> None:
    """The answer is withheld, and the verdict has the error of the review step."""
    message = make_agent(REFUSING, PAUSE).invoke(ASKED)["messages"][-1]
    verdict = message.response_metadata["aspire_guard"]
    assert verdict["route"] == "abstain"
    assert not verdict["released"]
    assert "expected a graph with a checkpointer to pause, found none" in verdict["error"]


@SYNC_AND_ASYNC
def test_a_guard_with_fallbacks_does_not_swallow_an_interrupt(way: str) -> None:
    """A pause is not a failure: the graph around the agent pauses, and the fallback is never asked."""
    asked_for: list[Any] = []

    def other(input: Any) -> Any:
        asked_for.append(input)
        return {"messages": [AIMessage("never")]}

    inner = AspireGuard(make_agent(REFUSING, PAUSE), evaluator=TRUSTING)
    node: Runnable[Any, Any] = inner.with_fallbacks([RunnableLambda(other)])
    graph: Any = StateGraph(GuardedState).add_node("agent", node).add_edge(START, "agent")
    graph = graph.compile(checkpointer=InMemorySaver())
    assert run(graph, ASKED, thread(), way=way)["__interrupt__"][0].value["answer"] == ANSWER
    assert texts(run(graph, Command(resume={"action": "approve"}), thread(), way=way))[-1] == ANSWER
    assert asked_for == []


def make_piped_agent(middleware: list[Any], checkpointer: Any = None) -> Any:
    model = ScriptedChatModel(lambda messages: AIMessage("Write to ada@example.com."))
    return create_agent(model, [look_up], middleware=middleware, checkpointer=checkpointer)


def redact() -> PIIMiddleware:
    return PIIMiddleware("email", apply_to_output=True, apply_to_input=False)


@SYNC_AND_ASYNC
@pytest.mark.parametrize(
    "decision", [{"action": "approve"}, {"action": "edit", "text": "Write to bob@example.com."}]
)
def test_a_released_answer_passes_the_hooks_of_middleware_before_the_guard(
    decision: Any, way: str
) -> None:
    """An answer that a person approves or edits is redacted like any other answer."""
    guard = AspireGuardMiddleware(evaluator=REFUSING, policy=PAUSE)
    agent = make_piped_agent([redact(), guard], InMemorySaver())
    run(agent, ASKED, thread(), way=way)
    result = run(agent, Command(resume=decision), thread(), way=way)
    assert texts(result)[-1] == "Write to [REDACTED_EMAIL]."


@SYNC_AND_ASYNC
@pytest.mark.parametrize("evaluator", [TRUSTING, REFUSING])
def test_middleware_that_would_not_see_a_released_answer_is_refused(
    evaluator: Any, way: str
) -> None:
    """The first answer of the agent says which order is right, before anything is released by a person."""
    guard = AspireGuardMiddleware(evaluator=evaluator, policy=PAUSE)
    agent = make_piped_agent([guard, redact()], InMemorySaver())
    with pytest.raises(InputError, match="found 1 of them behind it"):
        run(agent, ASKED, thread(), way=way)


def test_the_order_is_free_where_no_person_decides() -> None:
    """A guard without a review may stand before other hooks, since it releases an answer before them."""
    guard = AspireGuardMiddleware(evaluator=TRUSTING)
    result = run(make_piped_agent([guard, redact()], InMemorySaver()), ASKED, thread(), way="sync")
    assert texts(result)[-1] == "Write to [REDACTED_EMAIL]."


@SYNC_AND_ASYNC
def test_a_second_question_to_an_agent_loses_no_review(way: str) -> None:
    """The first answer waits until the agent has answered again, and both decisions reach their messages."""
    agent = make_agent(REFUSING, PAUSE, checkpointer=InMemorySaver())
    run(agent, ASKED, thread(), way=way)
    run(agent, {"messages": [HumanMessage("And who?")]}, thread(), way=way)
    run(agent, Command(resume={"action": "edit", "text": "Pemba."}), thread(), way=way)
    result = run(agent, Command(resume={"action": "respond", "text": "Ada."}), thread(), way=way)
    assert texts(result) == [
        *("Where?", "", "It is an island.", "Pemba."),
        *("And who?", "", "It is an island.", "Ada."),
    ]
    assert agent.get_state(thread()).values["aspire_review"] == {}
