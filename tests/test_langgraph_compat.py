"""Writes from a guarded node into the graph around it: no answer leaves the guard that way without being judged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from traceback import format_exception
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import Runnable, RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphDrained
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import push_message
from langgraph.types import Command, interrupt

from aspire_guard.errors import UnguardedWriteError
from aspire_guard.guard import AspireGuard
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.routing.routes import Fallback
from aspire_guard.testing import ConstantEvaluator

ANSWER = "zanq ziwx barq"
ABSTENTION = "I can't answer this question."
REFUSING = ConstantEvaluator(confidence=0.0)
TRUSTING = ConstantEvaluator(confidence=1.0)
ASKED: Any = {"messages": [HumanMessage("Where?")]}
MODES: Any = ["values", "updates", "messages", "custom", "checkpoints", "tasks", "debug"]
SYNC_AND_ASYNC = pytest.mark.parametrize("way", ["sync", "async"])


def thread() -> Any:
    return {"configurable": {"thread_id": "1"}}


def show_everything(graph: Any, asked: Any, way: str) -> str:
    """Return everything that a graph shows while it runs, and the events of another run."""

    async def chunks(stream: Any) -> list[Any]:
        return [chunk async for chunk in stream]

    if way == "sync":
        return str(list(graph.stream(asked, thread(), stream_mode=MODES, subgraphs=True)))
    modes = str(
        asyncio.run(chunks(graph.astream(asked, thread(), stream_mode=MODES, subgraphs=True)))
    )
    return modes + str(asyncio.run(chunks(graph.astream_events(asked, thread(), version="v2"))))


def run(graph: Any, asked: Any, way: str) -> Any:
    return (
        asyncio.run(graph.ainvoke(asked, thread()))
        if way == "async"
        else graph.invoke(asked, thread())
    )


def make_outer_graph(node: Runnable[Any, Any], saver: InMemorySaver | None = None) -> Any:
    """Make a graph with a guarded node, and a node that a command may go to."""
    builder: Any = (
        StateGraph(MessagesState).add_node("guarded", node).add_node("desk", lambda state: {})
    )
    return builder.add_edge(START, "guarded").compile(checkpointer=saver)


def make_commanding_graph() -> Any:
    """Make a graph whose node answers with a command for the graph around it."""

    def answer(state: Any) -> Command[Any]:
        return Command(graph=Command.PARENT, goto="desk", update={"messages": [AIMessage(ANSWER)]})

    return StateGraph(MessagesState).add_node("answer", answer).add_edge(START, "answer").compile()


def make_collecting_node(guard: AspireGuard) -> Runnable[Any, Any]:
    """Make a node that returns the chunks that a guard streams."""

    def collect(state: Any) -> dict[str, Any]:
        return {"messages": list(guard.stream(state))}

    async def acollect(state: Any) -> dict[str, Any]:
        return {"messages": [chunk async for chunk in guard.astream(state)]}

    return RunnableLambda(collect, afunc=acollect)


@SYNC_AND_ASYNC
@pytest.mark.parametrize("release", ["answer", "sentence"])
def test_a_command_for_the_parent_graph_is_refused(release: Any, way: str) -> None:
    """The command would put an unjudged answer into the state, so an error says what to do and quotes nothing."""
    saver = InMemorySaver()
    guard = AspireGuard(make_commanding_graph(), evaluator=TRUSTING, release=release)
    for node in (guard, make_collecting_node(guard)):
        with pytest.raises(
            UnguardedWriteError, match=r"^expected .* found a Command for the parent graph, "
        ) as raised:
            show_everything(make_outer_graph(node, saver), ASKED, way)
        assert "AspireGuardMiddleware" in str(raised.value)
        assert "zanq" not in "".join(format_exception(raised.value))
    assert "zanq" not in str([saver.storage, saver.writes, saver.blobs])


@SYNC_AND_ASYNC
def test_a_command_for_the_parent_graph_is_an_error_of_the_chain(way: str) -> None:
    """The policy can route the error, a batch keeps its other answers, and `with_fallbacks` asks a fallback."""
    policy = RoutingPolicy(
        on_chain_error="fallback", otherwise=Fallback(lambda state: AIMessage("Ada"))
    )
    guard = AspireGuard(make_commanding_graph(), evaluator=TRUSTING, policy=policy)
    node = guard | RunnableLambda(lambda message: {"messages": [message]})
    assert run(make_outer_graph(node), ASKED, way)["messages"][-1].content == "Ada"

    def one_commands(asked: Any) -> Any:
        return make_commanding_graph() if asked == ASKED else "Ada"

    with_one = AspireGuard(RunnableLambda(one_commands), evaluator=TRUSTING)
    inputs = [ASKED, "Who?"]

    def batched(state: Any) -> Any:
        failed, answered = with_one.batch(inputs, return_exceptions=True)
        return {"messages": [AIMessage(f"{type(failed).__name__}, {answered}")]}

    async def abatched(state: Any) -> Any:
        failed, answered = await with_one.abatch(inputs, return_exceptions=True)
        return {"messages": [AIMessage(f"{type(failed).__name__}, {answered}")]}

    graph = make_outer_graph(RunnableLambda(batched, afunc=abatched))
    assert run(graph, ASKED, way)["messages"][-1].content == "UnguardedWriteError, Ada"
    other = AspireGuard(make_commanding_graph(), evaluator=TRUSTING).with_fallbacks(
        [RunnableLambda(lambda state: state)]
    )
    assert len(run(make_outer_graph(other), ASKED, way)["messages"]) == 1


@SYNC_AND_ASYNC
def test_a_graph_with_an_order_to_stop_stops(way: str) -> None:
    """An order to stop is not a command, and passes through like an interrupt."""

    def stop(state: Any) -> Any:
        raise GraphDrained

    policy = RoutingPolicy(on_chain_error="fallback", otherwise=Fallback(lambda state: "never"))
    guard = AspireGuard(stop, evaluator=TRUSTING, policy=policy)
    with pytest.raises(GraphDrained):
        asyncio.run(guard.ainvoke("Where?")) if way == "async" else guard.invoke("Where?")


@SYNC_AND_ASYNC
def test_a_pushed_message_does_not_enter_the_state(way: str) -> None:
    """Only the abstention enters the state and the streams."""

    def push(state: Any) -> dict[str, Any]:
        push_message(AIMessage(ANSWER, id="1"))
        return {"messages": [AIMessage(ANSWER, id="2")]}

    saver = InMemorySaver()
    graph = make_outer_graph(AspireGuard(push, evaluator=REFUSING), saver)
    everything = show_everything(graph, ASKED, way) + str(
        [run(graph, ASKED, way), saver.storage, saver.writes, saver.blobs]
    )
    assert ABSTENTION in everything
    assert "zanq" not in everything


@SYNC_AND_ASYNC
def test_an_interrupt_may_be_answered_twice(way: str) -> None:
    """Answers to the interrupts of a guarded node reach it."""

    def ask_twice(state: Any) -> dict[str, Any]:
        return {"messages": [AIMessage(f"{interrupt('first')}, {interrupt('second')}")]}

    graph = make_outer_graph(AspireGuard(ask_twice, evaluator=TRUSTING), InMemorySaver())
    assert run(graph, ASKED, way)["__interrupt__"][0].value == "first"
    assert run(graph, Command(resume="a"), way)["__interrupt__"][0].value == "second"
    assert run(graph, Command(resume="b"), way)["messages"][-1].content == "a, b"


@task
def look_up(question: str) -> str:
    return ANSWER


@task
async def alook_up(question: str) -> str:
    return ANSWER


def sync_chain(question: str) -> Any:
    return look_up(question).result()


async def async_chain(question: str) -> Any:
    return await alook_up(question)


def make_workflow(guard: Runnable[Any, Any], way: str, saver: InMemorySaver | None = None) -> Any:
    def ask(question: str) -> Any:
        return guard.invoke(question)

    async def aask(question: str) -> Any:
        return await guard.ainvoke(question)

    function: Callable[[str], Any] = ask if way == "sync" else aask
    return entrypoint(checkpointer=saver)(function)


@SYNC_AND_ASYNC
def test_a_task_is_refused(way: str) -> None:
    """The graph would show a task's result before it is judged, so an error says what to do."""
    saver = InMemorySaver()
    guard = AspireGuard(RunnableLambda(sync_chain, afunc=async_chain), evaluator=REFUSING)
    with pytest.raises(
        UnguardedWriteError, match=r"^expected .* found one of '\w+', .*; call the guard inside"
    ):
        show_everything(make_workflow(guard, way, saver), "Where?", way)
    assert "zanq" not in str([saver.storage, saver.writes, saver.blobs])


@SYNC_AND_ASYNC
def test_tasks_of_a_guarded_entrypoint_are_shown_nowhere(way: str) -> None:
    """A guarded entrypoint has a graph of its own, so its tasks are shown nowhere."""
    function: Any = sync_chain if way == "sync" else async_chain
    everything = show_everything(
        make_workflow(AspireGuard(entrypoint()(function), evaluator=REFUSING), way), "Where?", way
    )
    assert ABSTENTION in everything
    assert "zanq" not in everything


@SYNC_AND_ASYNC
def test_a_guard_inside_a_task_shows_what_it_released(way: str) -> None:
    """The result of a task that calls a guard is the guard's output."""
    guard = AspireGuard(lambda question: ANSWER, evaluator=REFUSING)

    @task
    def ask(question: str) -> Any:
        return guard.invoke(question)

    @entrypoint()
    def asking(question: str) -> Any:
        return ask(question).result()

    everything = show_everything(asking, "Where?", way)
    assert ABSTENTION in everything
    assert "zanq" not in everything


@SYNC_AND_ASYNC
def test_a_guarded_graph_without_checkpoints_leaves_none(way: str) -> None:
    """A guarded graph with checkpoints keeps the rejected answer in the outer graph's checkpointer."""
    builder: Any = StateGraph(MessagesState).add_node(
        "answer", lambda state: {"messages": [AIMessage(ANSWER)]}
    )
    builder.add_edge(START, "answer")
    kept = []
    for own in (None, False):
        saver = InMemorySaver()
        run(
            make_outer_graph(
                AspireGuard(builder.compile(checkpointer=own), evaluator=REFUSING), saver
            ),
            ASKED,
            way,
        )
        kept.append("zanq" in str([saver.storage, saver.writes, saver.blobs]))
    assert kept == [True, False]
