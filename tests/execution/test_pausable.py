"""Fallbacks, retries and bindings of a guard: an interrupt pauses the graph, and a failure is handled."""

from __future__ import annotations

import asyncio
import copy
from collections import Counter
from collections.abc import Callable
from typing import Any, TypedDict

import pytest
from langchain_core.runnables import Runnable, RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from aspire_guard.guard import AspireGuard
from aspire_guard.testing import ConstantEvaluator

SYNC_AND_ASYNC = pytest.mark.parametrize("way", ["sync", "async"])
THREAD: Any = {"configurable": {"thread_id": "1"}}
NEVER: Runnable[Any, Any] = RunnableLambda(lambda asked: "never")

Wrap = Callable[[AspireGuard], Runnable[Any, Any]]
WRAPPERS: dict[str, Wrap] = {
    "retry": lambda guard: guard.with_retry(wait_exponential_jitter=False),
    "fallbacks": lambda guard: guard.with_fallbacks([NEVER]),
    "config, fallbacks": lambda guard: guard.with_config(tags=["t"]).with_fallbacks([NEVER]),
    "arguments, retry": lambda guard: guard.bind(k=1).with_retry(wait_exponential_jitter=False),
    "types, fallbacks": lambda guard: guard.with_types(output_type=str).with_fallbacks([NEVER]),
    "listeners, fallbacks": lambda guard: guard.with_listeners().with_fallbacks([NEVER]),
    "async listeners, config, fallbacks": lambda guard: (
        guard.with_alisteners().with_config(tags=["t"]).with_fallbacks([NEVER])
    ),
    "retry, config, fallbacks": lambda guard: (
        guard.with_retry(wait_exponential_jitter=False)
        .with_config(tags=["t"])
        .with_fallbacks([NEVER])
    ),
    "fallbacks, retry": lambda guard: guard.with_fallbacks([NEVER]).with_retry(
        wait_exponential_jitter=False
    ),
}


class State(TypedDict):
    asked: str
    said: str


class Asking:
    """A chain that counts its generations and asks a person, inside the guard."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def __call__(self, asked: str, **kwargs: Any) -> str:
        self.calls["generations"] += 1
        return str(interrupt("Which island?"))


@SYNC_AND_ASYNC
@pytest.mark.parametrize("method", ["invoke", "batch", "stream"])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_an_interrupt_pauses_the_graph_at_once(wrapper: str, method: str, way: str) -> None:
    """No wrapper takes a pause for a failure: the chain has run once when the graph pauses."""
    asking = Asking()
    guard = AspireGuard(RunnableLambda(asking), evaluator=ConstantEvaluator(1.0))
    wrapped = WRAPPERS[wrapper](guard)

    def answer(state: State) -> dict[str, Any]:
        if method == "stream":
            return {"said": list(wrapped.stream(state["asked"]))[-1]}
        if method == "batch":
            return {"said": wrapped.batch([state["asked"]])[0]}
        return {"said": wrapped.invoke(state["asked"])}

    async def aanswer(state: State) -> dict[str, Any]:
        if method == "stream":
            return {"said": [chunk async for chunk in wrapped.astream(state["asked"])][-1]}
        if method == "batch":
            return {"said": (await wrapped.abatch([state["asked"]]))[0]}
        return {"said": await wrapped.ainvoke(state["asked"])}

    node: Any = aanswer if way == "async" else answer
    builder: Any = StateGraph(State).add_node("answer", node).add_edge(START, "answer")
    graph = builder.compile(checkpointer=InMemorySaver())

    def run(asked: Any) -> Any:
        if way == "async":
            return asyncio.run(graph.ainvoke(asked, THREAD))
        return graph.invoke(asked, THREAD)

    paused = run({"asked": "Where?"})
    assert paused["__interrupt__"][0].value == "Which island?"
    assert asking.calls == {"generations": 1}
    assert run(Command(resume="Pemba."))["said"] == "Pemba."


@SYNC_AND_ASYNC
def test_a_failure_is_still_handled(way: str) -> None:
    """A retry tries again, and a fallback answers in the end."""
    calls: Counter[str] = Counter()

    def fail(asked: str) -> str:
        calls["generations"] += 1
        raise TimeoutError

    guard = AspireGuard(RunnableLambda(fail), evaluator=ConstantEvaluator(1.0))
    wrapped = guard.with_retry(wait_exponential_jitter=False).with_fallbacks([NEVER])
    answer = asyncio.run(wrapped.ainvoke("?")) if way == "async" else wrapped.invoke("?")
    assert answer == "never"
    assert calls == {"generations": 3}
    assert wrapped.batch(["?", "?"]) == ["never", "never"]
    retried = guard.with_retry(wait_exponential_jitter=False)
    assert [type(error) for error in retried.batch(["?"], return_exceptions=True)] == [TimeoutError]


def test_an_interrupt_of_a_batch_is_raised_even_if_exceptions_are_returned() -> None:
    """An interrupt is not an exception to return: the graph pauses."""
    guard = AspireGuard(RunnableLambda(Asking()), evaluator=ConstantEvaluator(1.0))
    wrapped = guard.with_fallbacks([NEVER])

    def node(state: State) -> dict[str, Any]:
        return {"said": wrapped.batch([state["asked"]], return_exceptions=True)[0]}

    builder: Any = StateGraph(State).add_node("answer", node).add_edge(START, "answer")
    graph = builder.compile(checkpointer=InMemorySaver())
    paused = graph.invoke({"asked": "Where?"}, THREAD)
    assert paused["__interrupt__"][0].value == "Which island?"


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_the_guards_own_methods_stay_at_hand(wrapper: str) -> None:
    """`judge` of a wrapper judges with the guard. A copy works too, and an unknown name is an error."""
    guard = AspireGuard(
        RunnableLambda(lambda asked, **kwargs: "Ada."), evaluator=ConstantEvaluator(0.25)
    )
    wrapped: Any = copy.copy(WRAPPERS[wrapper](guard))
    assert wrapped.judge("Who?").confidence == 0.25
    assert asyncio.run(wrapped.ajudge("Who?")).confidence == 0.25
    assert [verdict.confidence for verdict in wrapped.judge_batch(["Who?"])] == [0.25]
    with pytest.raises(AttributeError):
        wrapped.jugde("Who?")
