"""No token of a rejected answer leaves the guard on any surface, and without the cure each surface leaks."""

from __future__ import annotations

import asyncio
import io
import operator
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import redirect_stdout, suppress
from functools import cache, cached_property
from typing import Annotated, Any, Literal, TypedDict, get_args

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import CallbackManagerForRetrieverRun, StreamingStdOutCallbackHandler
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda, RunnablePassthrough
from langchain_core.tools import tool
from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages

from aspire_guard.exchange import find_answer, read_answer
from aspire_guard.execution import isolation
from aspire_guard.guard import AspireGuard
from aspire_guard.testing import ConstantEvaluator, ScriptedChatModel

ANSWER = "zanq ziwx barq"
TOKENS = ANSWER.split()
ABSTENTION = "I can't answer this question."
TRUSTING = ConstantEvaluator(confidence=1.0)
REFUSING = ConstantEvaluator(confidence=0.0)

PROMPT = ChatPromptTemplate.from_template("{question}")
MODEL = ScriptedChatModel(ANSWER, streaming=True)
MESSAGES = [HumanMessage("Where?")]

pytestmark = [
    # v1 of the events is deprecated and v3 of a graph's is new; users have both.
    pytest.mark.filterwarnings("ignore:.*version='v1' is deprecated"),
    pytest.mark.filterwarnings("ignore:The v3 streaming protocol on Pregel is experimental"),
    pytest.mark.filterwarnings("ignore:.*astream_log is deprecated"),
]


@tool
def look_up(place: str) -> str:
    """Look a place up."""
    return "page 1"


def call_a_tool_first(messages: list[BaseMessage]) -> AIMessage:
    if isinstance(messages[-1], ToolMessage):
        return AIMessage(ANSWER)
    return AIMessage("", tool_calls=[{"name": "look_up", "args": {"place": "?"}, "id": "1"}])


class OnePassage(BaseRetriever):
    """Returns one passage for any query."""

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        return [Document("It is an island.")]


def run_without_config(question: str) -> Any:
    """Run a model without passing on a config, and write its answer to a graph's stream writer."""
    answer = str(MODEL.invoke(question).text)
    with suppress(RuntimeError, KeyError):  # not inside a graph
        get_stream_writer()(answer)
    return answer


class Conversation(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def make_graph() -> Runnable[Any, Any]:
    def answer(state: Conversation) -> dict[str, Any]:
        get_stream_writer()(ANSWER)
        return {"messages": [MODEL.invoke(state["messages"])]}

    return StateGraph(Conversation).add_node("answer", answer).add_edge(START, "answer").compile()


# The guarded chains, and their inputs.
CHAINS: dict[str, tuple[Callable[[], Runnable[Any, Any]], Any]] = {
    "prompt-model-parser": (lambda: PROMPT | MODEL | StrOutputParser(), {"question": "Where?"}),
    "RAG": (
        lambda: RunnablePassthrough.assign(
            context=RunnableLambda(operator.itemgetter("question")) | OnePassage()
        ).assign(answer=PROMPT | MODEL | StrOutputParser()),
        {"question": "Where?"},
    ),
    "chat model": (lambda: MODEL, MESSAGES),
    "agent": (
        lambda: create_agent(ScriptedChatModel(call_a_tool_first, streaming=True), [look_up]),
        {"messages": MESSAGES},
    ),
    "graph": (make_graph, {"messages": MESSAGES}),
    "function": (lambda: RunnableLambda(run_without_config), "Where?"),
}


class Asked(TypedDict):
    asked: Any
    messages: Annotated[list[AnyMessage], add_messages]


class Subject:
    """A guarded chain, its input, and a graph with the guard as its only node."""

    def __init__(self, chain: str, evaluator: ConstantEvaluator) -> None:
        make, self.asked = CHAINS[chain]
        self.guard = AspireGuard(make(), evaluator=evaluator)

    @cached_property
    def graph(self) -> Any:
        def to_messages(output: Any) -> dict[str, Any]:
            answer = find_answer(output)
            return {
                "messages": [
                    answer if isinstance(answer, AIMessage) else AIMessage(read_answer(output))
                ]
            }

        node: Any = (
            RunnableLambda(operator.itemgetter("asked")) | self.guard | RunnableLambda(to_messages)
        )
        return StateGraph(Asked).add_node("guarded", node).add_edge(START, "guarded").compile()


subject = cache(Subject)


async def _gather(stream: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in stream]


def stream(of: Subject) -> list[Any]:
    return list(of.guard.stream(of.asked))


def astream(of: Subject) -> list[Any]:
    return asyncio.run(_gather(of.guard.astream(of.asked)))


def transform(of: Subject) -> list[Any]:
    return list(of.guard.transform(iter([of.asked])))


def atransform(of: Subject) -> list[Any]:
    async def chunks() -> AsyncIterator[Any]:
        yield of.asked

    return asyncio.run(_gather(of.guard.atransform(chunks())))


def stream_in_a_sequence(of: Subject) -> list[Any]:
    return list((RunnablePassthrough() | of.guard).stream(of.asked))


def astream_events(version: Any) -> Surface:
    return lambda of: asyncio.run(_gather(of.guard.astream_events(of.asked, version=version)))


def astream_log(of: Subject) -> list[Any]:
    return asyncio.run(_gather(of.guard.astream_log(of.asked)))


def stream_batch_events(of: Subject) -> list[Any]:
    """A batch inside another runnable, whose events are streamed."""

    async def outer(question: str) -> Any:
        return await of.guard.abatch([of.asked, of.asked])

    return asyncio.run(_gather(RunnableLambda(outer).astream_events("Where?", version="v2")))


def graph_mode(mode: str) -> Surface:
    return lambda of: list(of.graph.stream({"asked": of.asked}, stream_mode=mode, subgraphs=True))


def agraph_mode(mode: str) -> Surface:
    return lambda of: asyncio.run(
        _gather(of.graph.astream({"asked": of.asked}, stream_mode=mode, subgraphs=True))
    )


def graph_events(of: Subject) -> list[Any]:
    return asyncio.run(_gather(of.graph.astream_events({"asked": of.asked}, version="v2")))


def graph_stream_events_v3(of: Subject) -> list[Any]:
    return list(of.graph.stream_events({"asked": of.asked}, version="v3"))


def graph_astream_events_v3(of: Subject) -> list[Any]:
    async def events() -> list[Any]:
        return await _gather(await of.graph.astream_events({"asked": of.asked}, version="v3"))

    return asyncio.run(events())


def print_by_handler(of: Subject) -> list[Any]:
    """LangChain's handler that prints each token."""
    with redirect_stdout(io.StringIO()) as printed:
        output = of.guard.invoke(of.asked, {"callbacks": [StreamingStdOutCallbackHandler()]})
    return [printed.getvalue(), output]


Surface = Callable[[Subject], list[Any]]

# These surfaces wait for the decision. On the others LangChain and LangGraph look into a run that goes on.
BUFFERED: dict[str, Surface] = {
    "stream": stream,
    "astream": astream,
    "transform": transform,
    "atransform": atransform,
    "stream in a sequence": stream_in_a_sequence,
}
SILENCED: dict[str, Surface] = {
    "astream_events v1": astream_events("v1"),
    "astream_events v2": astream_events("v2"),
    "astream_events v2 of a batch": stream_batch_events,
    "astream_log": astream_log,
    "printing callback": print_by_handler,
    "LangGraph messages": graph_mode("messages"),
    "LangGraph messages, async": agraph_mode("messages"),
    "LangGraph updates": graph_mode("updates"),
    "LangGraph values, async": agraph_mode("values"),
    "LangGraph debug": graph_mode("debug"),
    "LangGraph custom": graph_mode("custom"),
    "LangGraph custom, async": agraph_mode("custom"),
    "LangGraph astream_events v2": graph_events,
    "LangGraph stream_events v3": graph_stream_events_v3,
    "LangGraph astream_events v3": graph_astream_events_v3,
}
SURFACES = BUFFERED | SILENCED


Case = Literal["accepted", "rejected", "rejected, no cure"]
CASES: tuple[Case, ...] = get_args(Case)


@cache
def show(surface: str, chain: str, case: Case) -> str:
    """Return everything that a surface shows of a guarded chain."""
    of = subject(chain, TRUSTING if case == "accepted" else REFUSING)
    with pytest.MonkeyPatch.context() as patch:
        if case == "rejected, no cure":
            remove_isolation(patch, surface)
        return str(SURFACES[surface](of))


def count_shown_tokens(surface: str, chain: str, case: Case) -> int:
    """Count the answer's tokens that a surface shows."""
    return sum(token in show(surface, chain, case) for token in TOKENS)


def remove_isolation(patch: pytest.MonkeyPatch, surface: str) -> None:
    """Make the guard pass on the chain's stream, or leave the callbacks of its config as they are."""

    def stream(
        self: AspireGuard, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        yield from self.chain.stream(input, config, **kwargs)

    async def astream(
        self: AspireGuard, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        async for chunk in self.chain.astream(input, config, **kwargs):
            yield chunk

    if surface in SILENCED:
        patch.setattr(isolation, "isolate_config", lambda config: config)
    else:
        patch.setattr(AspireGuard, "stream", stream)
        patch.setattr(AspireGuard, "astream", astream)


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("surface", SURFACES)
def test_a_surface_shows_accepted_answers_alone(surface: str, chain: str) -> None:
    """It shows no token of a rejected answer, but the abstention, and every token of an accepted answer.

    The stream that a node itself writes to shows neither.
    """
    assert count_shown_tokens(surface, chain, "rejected") == 0
    if "custom" in surface:
        assert count_shown_tokens(surface, chain, "accepted") == 0
    else:
        assert ABSTENTION in show(surface, chain, "rejected")
        assert count_shown_tokens(surface, chain, "accepted") == len(TOKENS)


@pytest.mark.parametrize("surface", SURFACES)
def test_without_the_cure_the_surface_leaks(surface: str) -> None:
    """Without the cure each surface shows every token of a rejected answer, for at least one chain."""
    shown = [count_shown_tokens(surface, chain, "rejected, no cure") for chain in CHAINS]
    assert max(shown) == len(TOKENS)


def test_the_matrix() -> None:
    """With `pytest -s`, print how many tokens of which answers each surface shows: no token of a rejected answer."""
    totals = dict.fromkeys(CASES, 0)
    print(f"\n{'':30}" + "".join(f"{chain:>22}" for chain in CHAINS))
    for surface in SURFACES:
        cells = []
        for chain in CHAINS:
            counts = [count_shown_tokens(surface, chain, case) for case in CASES]
            cells.append("/".join(map(str, counts)))
            for case, count in zip(CASES, counts, strict=True):
                totals[case] += count
        print(f"{surface:30}" + "".join(f"{cell:>22}" for cell in cells))
    print(f"tokens shown of {len(TOKENS)}: {' / '.join(CASES)}")
    assert totals["rejected"] == 0 < totals["rejected, no cure"]
