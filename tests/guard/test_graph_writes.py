"""What reaches from a node into its graph: nothing that was not judged goes that way out of a guard."""

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


def shown(graph: Any, asked: Any, way: str) -> str:
    """All that a graph shows while it runs, with the events of a run of its own."""

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


def around(node: Runnable[Any, Any], saver: InMemorySaver | None = None) -> Any:
    """A graph with a guard as its only node but one, to which a command may go."""
    builder: Any = (
        StateGraph(MessagesState).add_node("guarded", node).add_node("desk", lambda state: {})
    )
    return builder.add_edge(START, "guarded").compile(checkpointer=saver)


def commanding() -> Any:
    """A graph whose node answers in a command for the graph around it."""

    def answer(state: Any) -> Command[Any]:
        return Command(graph=Command.PARENT, goto="desk", update={"messages": [AIMessage(ANSWER)]})

    return StateGraph(MessagesState).add_node("answer", answer).add_edge(START, "answer").compile()


def collected(guard: AspireGuard) -> Runnable[Any, Any]:
    """A node that gives what a guard streams."""

    def collect(state: Any) -> dict[str, Any]:
        return {"messages": list(guard.stream(state))}

    async def acollect(state: Any) -> dict[str, Any]:
        return {"messages": [chunk async for chunk in guard.astream(state)]}

    return RunnableLambda(collect, afunc=acollect)


@SYNC_AND_ASYNC
@pytest.mark.parametrize("release", ["answer", "sentence"])
def test_a_command_for_the_parent_graph_is_refused(release: Any, way: str) -> None:
    """It would put an answer into the state that nobody judged; the error says what to do, and quotes nothing."""
    saver = InMemorySaver()
    guard = AspireGuard(commanding(), evaluator=TRUSTING, release=release)
    for node in (guard, collected(guard)):
        with pytest.raises(
            UnguardedWriteError, match=r"^expected .* found a Command for the parent graph, "
        ) as raised:
            shown(around(node, saver), ASKED, way)
        assert "AspireGuardMiddleware" in str(raised.value)
        assert "zanq" not in "".join(format_exception(raised.value))
    assert "zanq" not in str([saver.storage, saver.writes, saver.blobs])


@SYNC_AND_ASYNC
def test_a_command_for_the_parent_graph_is_an_error_of_the_chain(way: str) -> None:
    """So the policy may route it, a batch keeps its other answers, and `with_fallbacks` goes on."""
    policy = RoutingPolicy(
        on_chain_error="fallback", otherwise=Fallback(lambda state: AIMessage("Ada"))
    )
    guard = AspireGuard(commanding(), evaluator=TRUSTING, policy=policy)
    node = guard | RunnableLambda(lambda message: {"messages": [message]})
    assert run(around(node), ASKED, way)["messages"][-1].content == "Ada"

    def one_commands(asked: Any) -> Any:
        return commanding() if asked == ASKED else "Ada"

    with_one = AspireGuard(RunnableLambda(one_commands), evaluator=TRUSTING)
    inputs = [ASKED, "Who?"]

    def batched(state: Any) -> Any:
        failed, answered = with_one.batch(inputs, return_exceptions=True)
        return {"messages": [AIMessage(f"{type(failed).__name__}, {answered}")]}

    async def abatched(state: Any) -> Any:
        failed, answered = await with_one.abatch(inputs, return_exceptions=True)
        return {"messages": [AIMessage(f"{type(failed).__name__}, {answered}")]}

    graph = around(RunnableLambda(batched, afunc=abatched))
    assert run(graph, ASKED, way)["messages"][-1].content == "UnguardedWriteError, Ada"
    other = AspireGuard(commanding(), evaluator=TRUSTING).with_fallbacks(
        [RunnableLambda(lambda state: state)]
    )
    assert len(run(around(other), ASKED, way)["messages"]) == 1


@SYNC_AND_ASYNC
def test_a_graph_that_is_told_to_stop_stops(way: str) -> None:
    """That is no command: it passes as an interrupt does."""

    def stop(state: Any) -> Any:
        raise GraphDrained

    policy = RoutingPolicy(on_chain_error="fallback", otherwise=Fallback(lambda state: "never"))
    guard = AspireGuard(stop, evaluator=TRUSTING, policy=policy)
    with pytest.raises(GraphDrained):
        asyncio.run(guard.ainvoke("Where?")) if way == "async" else guard.invoke("Where?")


@SYNC_AND_ASYNC
def test_a_pushed_message_does_not_enter_the_state(way: str) -> None:
    """Nor a stream; the abstention does."""

    def push(state: Any) -> dict[str, Any]:
        push_message(AIMessage(ANSWER, id="1"))
        return {"messages": [AIMessage(ANSWER, id="2")]}

    saver = InMemorySaver()
    graph = around(AspireGuard(push, evaluator=REFUSING), saver)
    everything = shown(graph, ASKED, way) + str(
        [run(graph, ASKED, way), saver.storage, saver.writes, saver.blobs]
    )
    assert ABSTENTION in everything
    assert "zanq" not in everything


@SYNC_AND_ASYNC
def test_an_interrupt_may_be_answered_twice(way: str) -> None:
    """What a guarded node tells its graph of answers to its interrupts is heard."""

    def ask_twice(state: Any) -> dict[str, Any]:
        return {"messages": [AIMessage(f"{interrupt('first')}, {interrupt('second')}")]}

    graph = around(AspireGuard(ask_twice, evaluator=TRUSTING), InMemorySaver())
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


def workflow(guard: Runnable[Any, Any], way: str, saver: InMemorySaver | None = None) -> Any:
    def ask(question: str) -> Any:
        return guard.invoke(question)

    async def aask(question: str) -> Any:
        return await guard.ainvoke(question)

    function: Callable[[str], Any] = ask if way == "sync" else aask
    return entrypoint(checkpointer=saver)(function)


@SYNC_AND_ASYNC
def test_a_task_is_refused(way: str) -> None:
    """The graph would show its result before it is judged; the error says what to do."""
    saver = InMemorySaver()
    guard = AspireGuard(RunnableLambda(sync_chain, afunc=async_chain), evaluator=REFUSING)
    with pytest.raises(
        UnguardedWriteError, match=r"^expected .* found one of '\w+', .*; call the guard inside"
    ):
        shown(workflow(guard, way, saver), "Where?", way)
    assert "zanq" not in str([saver.storage, saver.writes, saver.blobs])


@SYNC_AND_ASYNC
def test_tasks_of_a_guarded_entrypoint_are_shown_nowhere(way: str) -> None:
    """It has a graph of its own for them."""
    function: Any = sync_chain if way == "sync" else async_chain
    everything = shown(
        workflow(AspireGuard(entrypoint()(function), evaluator=REFUSING), way), "Where?", way
    )
    assert ABSTENTION in everything
    assert "zanq" not in everything


@SYNC_AND_ASYNC
def test_a_guard_inside_a_task_shows_what_it_released(way: str) -> None:
    """The task's result is the guard's."""
    guard = AspireGuard(lambda question: ANSWER, evaluator=REFUSING)

    @task
    def ask(question: str) -> Any:
        return guard.invoke(question)

    @entrypoint()
    def asking(question: str) -> Any:
        return ask(question).result()

    everything = shown(asking, "Where?", way)
    assert ABSTENTION in everything
    assert "zanq" not in everything


@SYNC_AND_ASYNC
def test_a_guarded_graph_without_checkpoints_leaves_none(way: str) -> None:
    """Else it keeps its own in the checkpointer of the graph around it, the rejected answer included."""
    builder: Any = StateGraph(MessagesState).add_node(
        "answer", lambda state: {"messages": [AIMessage(ANSWER)]}
    )
    builder.add_edge(START, "answer")
    kept = []
    for own in (None, False):
        saver = InMemorySaver()
        run(
            around(AspireGuard(builder.compile(checkpointer=own), evaluator=REFUSING), saver),
            ASKED,
            way,
        )
        kept.append("zanq" in str([saver.storage, saver.writes, saver.blobs]))
    assert kept == [True, False]
