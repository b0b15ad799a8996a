"""The guard around every kind of chain is a Runnable like any other, whichever method it is called by."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import AsyncIterator, Callable
from typing import Any, TypedDict
from uuid import UUID, uuid4

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableBranch,
    RunnableConfig,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from langchain_core.tools import tool
from langgraph.graph import START, StateGraph

from aspire_guard.exchange import find_answer, read_answer
from aspire_guard.guard import AspireGuard
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.routing.routes import Fallback
from aspire_guard.testing import ConstantEvaluator, ScriptedChatModel

ABSTENTION = "I can't answer this question."
TRUSTING = ConstantEvaluator(confidence=1.0)
REFUSING = ConstantEvaluator(confidence=0.0)
PROMPT = ChatPromptTemplate.from_template("{question}")
MODEL = ScriptedChatModel("Ada keeps it.")


class OnePassage(BaseRetriever):
    """Returns one passage for any query."""

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        return [Document("The keeper is Ada.")]


@tool
def look_up(place: str) -> str:
    """Look a place up."""
    return "page 1"


def call_a_tool_first(messages: list[BaseMessage]) -> AIMessage:
    if isinstance(messages[-1], ToolMessage):
        return AIMessage("Ada keeps it.")
    return AIMessage("", tool_calls=[{"name": "look_up", "args": {"place": "?"}, "id": "1"}])


def make_agent() -> Runnable[Any, Any]:
    return create_agent(ScriptedChatModel(call_a_tool_first), [look_up])


RETRIEVE = RunnableLambda(operator.itemgetter("question")) | OnePassage()
MESSAGES = [HumanMessage("Who?", id="q")]
CHAINS: dict[str, tuple[Runnable[Any, Any], Any]] = {
    "prompt-model-parser": (PROMPT | MODEL | StrOutputParser(), {"question": "Who?"}),
    "RAG": (
        RunnablePassthrough.assign(context=RETRIEVE).assign(
            answer=PROMPT | MODEL | StrOutputParser()
        ),
        {"question": "Who?"},
    ),
    "chat model": (MODEL, MESSAGES),
    "agent": (make_agent(), {"messages": MESSAGES}),
    "function": (RunnableLambda(lambda question: "Ada keeps it."), "Who?"),
}


async def _get_only(stream: AsyncIterator[Any]) -> Any:
    (only,) = [item async for item in stream]
    return only


async def _yield_chunks(*chunks: Any) -> AsyncIterator[Any]:
    for chunk in chunks:
        yield chunk


def _stream(guard: Runnable[Any, Any], asked: Any, config: Any) -> Any:
    (only,) = guard.stream(asked, config)
    return only


def _astream_events(guard: Runnable[Any, Any], asked: Any, config: Any) -> Any:
    async def events() -> list[Any]:
        return [event async for event in guard.astream_events(asked, config, version="v2")]

    return asyncio.run(events())[-1]["data"]["output"]


async def _abatch_as_completed(guard: Runnable[Any, Any], asked: Any, config: Any) -> Any:
    return [result async for result in guard.abatch_as_completed([asked], config)]


WAYS: dict[str, Callable[[Runnable[Any, Any], Any, Any], Any]] = {
    "invoke": lambda guard, asked, config: guard.invoke(asked, config),
    "ainvoke": lambda guard, asked, config: asyncio.run(guard.ainvoke(asked, config)),
    "batch": lambda guard, asked, config: guard.batch([asked], config)[0],
    "abatch": lambda guard, asked, config: asyncio.run(guard.abatch([asked], config))[0],
    "batch_as_completed": lambda guard, asked, config: next(
        guard.batch_as_completed([asked], config)
    )[1],
    "abatch_as_completed": lambda guard, asked, config: asyncio.run(
        _abatch_as_completed(guard, asked, config)
    )[0][1],
    "stream": _stream,
    "astream": lambda guard, asked, config: asyncio.run(_get_only(guard.astream(asked, config))),
    "transform": lambda guard, asked, config: next(iter(guard.transform(iter([asked]), config))),
    "atransform": lambda guard, asked, config: asyncio.run(
        _get_only(guard.atransform(_yield_chunks(asked), config))
    ),
    "astream_events": _astream_events,
}


def get_kind(output: Any) -> type:
    """Return the type of an output. A parser may return a subclass of str."""
    return next(kind for kind in (str, AIMessage, dict) if isinstance(output, kind))


class Asked(TypedDict, total=False):
    asked: Any
    said: str


class Runs(BaseCallbackHandler):
    """A record of the runs that started, and of the ids of those that ended."""

    run_inline = True

    def __init__(self) -> None:
        self.starts: list[dict[str, Any]] = []
        self.ends: list[UUID] = []

    def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
        self.starts.append(kwargs)

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self.starts.append(kwargs)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self.ends.append(run_id)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("chain", CHAINS)
def test_released_is_what_the_chain_gives(chain: str, way: str) -> None:
    """A released output has the type, the answer and the other fields of the chain's own output."""
    runnable, asked = CHAINS[chain]
    plain = runnable.invoke(asked)
    released = WAYS[way](AspireGuard(runnable, evaluator=TRUSTING), asked, None)
    assert get_kind(released) is get_kind(plain)
    assert read_answer(released) == read_answer(plain) == "Ada keeps it."
    if isinstance(plain, dict):
        assert released.keys() == plain.keys()
        assert [type(message) for message in released.get("messages", [])] == [
            type(message) for message in plain.get("messages", [])
        ]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("chain", CHAINS)
def test_withheld_is_the_abstention_in_the_same_type(chain: str, way: str) -> None:
    """Nothing is left of a withheld answer, and a message carries the verdict."""
    runnable, asked = CHAINS[chain]
    withheld = WAYS[way](AspireGuard(runnable, evaluator=REFUSING), asked, None)
    assert get_kind(withheld) is get_kind(runnable.invoke(asked))
    assert read_answer(withheld) == ABSTENTION
    assert "Ada keeps it." not in str(withheld)
    answer = find_answer(withheld)
    if isinstance(answer, AIMessage):
        assert answer.response_metadata["aspire_guard"]["route"] == "abstain"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("chain", ["chat model", "agent"])
def test_the_guards_run_is_the_parent(chain: str, way: str) -> None:
    """The guard's run has the given id, name, tags and metadata, and is the parent of the chain's run."""
    runnable, asked = CHAINS[chain]
    runs, run_id = Runs(), uuid4()
    config: RunnableConfig = {
        "callbacks": [runs],
        "run_id": run_id,
        "run_name": "outer",
        "tags": ["t"],
        "metadata": {"tenant": "x"},
    }
    WAYS[way](AspireGuard(runnable, evaluator=TRUSTING), asked, config)
    outer, inner = runs.starts[:2]
    assert (outer["name"], outer["run_id"], outer["parent_run_id"]) == ("outer", run_id, None)
    assert inner["parent_run_id"] == run_id
    assert {"t"} <= set(outer["tags"]) & set(inner["tags"])
    assert outer["metadata"]["tenant"] == inner["metadata"]["tenant"] == "x"
    assert runs.ends[-1] == run_id


@pytest.mark.parametrize("chain", CHAINS)
def test_types_schemas_and_options_are_the_chains(chain: str) -> None:
    """The guard has the types, the schemas and the configurable fields of the chain."""
    runnable, _ = CHAINS[chain]
    guard = AspireGuard(runnable, evaluator=TRUSTING)
    assert (guard.InputType, guard.OutputType) == (runnable.InputType, runnable.OutputType)
    assert guard.get_input_jsonschema() == runnable.get_input_jsonschema()
    assert guard.get_output_jsonschema() == runnable.get_output_jsonschema()
    assert sorted(guard.config_specs) == sorted(runnable.config_specs)


@pytest.mark.parametrize("chain", CHAINS)
def test_it_composes_as_the_chain_does(chain: str) -> None:
    """A guard works in sequences, in parallel, in branches, bound, retried, with a config and as a node of a graph."""
    runnable, asked = CHAINS[chain]
    guard = AspireGuard(runnable, evaluator=REFUSING)
    read = RunnableLambda(read_answer)
    node: Any = (
        RunnableLambda(operator.itemgetter("asked"))
        | guard
        | RunnableLambda(lambda out: {"said": read_answer(out)})
    )
    graph: Any = StateGraph(Asked).add_node("guarded", node).add_edge(START, "guarded").compile()
    composed: list[Runnable[Any, Any]] = [
        RunnablePassthrough() | guard | read,
        RunnableParallel(one=guard | read) | operator.itemgetter("one"),
        RunnableBranch((lambda asked: True, guard), guard) | read,
        guard.bind() | read,
        guard.with_config(tags=["t"]) | read,
        guard.with_retry(stop_after_attempt=2) | read,
        guard.with_fallbacks([RunnableLambda(lambda asked: "never")]) | read,
        RunnableLambda(lambda asked: {"asked": asked}) | graph | operator.itemgetter("said"),
    ]
    assert [one.invoke(asked) for one in composed] == [ABSTENTION] * len(composed)
    assert [asyncio.run(one.ainvoke(asked)) for one in composed] == [ABSTENTION] * len(composed)


@pytest.mark.parametrize("chain", CHAINS)
def test_an_input_can_be_used_again(chain: str) -> None:
    """The guard writes nothing into the input, the list of inputs or the config."""
    runnable, asked = CHAINS[chain]
    before, config = repr(asked), {"tags": ["t"], "metadata": {}}
    AspireGuard(runnable, evaluator=REFUSING).batch([asked, asked], config)  # type: ignore[arg-type]
    assert (repr(asked), config) == (before, {"tags": ["t"], "metadata": {}})


def test_an_empty_batch_is_empty() -> None:
    """No inputs give no outputs, and the starter evaluator is not loaded for them."""
    guard = AspireGuard(MODEL)
    assert guard.batch([]) == guard.judge_batch([]) == []
    assert asyncio.run(guard.abatch([])) == asyncio.run(guard.ajudge_batch([])) == []


@pytest.mark.parametrize("way", ["batch", "abatch"])
def test_max_concurrency_is_kept(way: str) -> None:
    """The chain never works on more inputs at once than the config allows."""
    inside, most = 0, 0

    async def slow(question: str) -> str:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.01)
        inside -= 1
        return "Ada"

    guard = AspireGuard(
        RunnableLambda(lambda question: asyncio.run(slow(question)), afunc=slow), evaluator=TRUSTING
    )
    results = getattr(guard, way)(["Who?"] * 8, {"max_concurrency": 2})
    assert (asyncio.run(results) if way == "abatch" else results) == ["Ada"] * 8
    assert most <= 2


def test_kwargs_reach_the_chain() -> None:
    """Keyword arguments that are bound to the guard, or given with a call, reach the chain."""
    guard = AspireGuard(RunnableLambda(lambda question, end: f"Ada{end}"), evaluator=TRUSTING)
    assert guard.bind(end="!").invoke("Who?") == "Ada!"
    assert guard.invoke("Who?", end="?") == "Ada?"


def test_a_configurable_chain_is_configured_through_the_guard() -> None:
    """The guard has the configurable fields of the chain and of the fallbacks, and passes on their values."""

    def model(says: str, field: str) -> Runnable[Any, Any]:
        return (
            ScriptedChatModel(says).configurable_fields(says=ConfigurableField(id=field))
            | StrOutputParser()
        )

    policy = RoutingPolicy(otherwise=Fallback(model("Bob", "second")))
    trusts_clara = ConstantEvaluator(lambda exchange: float(exchange.answer == "Clara"))
    guard = AspireGuard(model("Ada", "first"), evaluator=trusts_clara, policy=policy)
    assert [spec.id for spec in guard.config_specs] == ["first", "second"]
    assert guard.invoke("Who?") == ABSTENTION
    assert guard.invoke("Who?", {"configurable": {"first": "Clara"}}) == "Clara"
    assert guard.with_config(configurable={"second": "Clara"}).invoke("Who?") == "Clara"
