"""Scoring what a chain answers without touching it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from multiprocessing import get_context
from threading import Event
from typing import Any
from uuid import uuid4

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.tools import tool
from langgraph.errors import GraphInterrupt

from aspire_guard.exchange import Exchange
from aspire_guard.observe import AspireCallbackHandler, Observation
from aspire_guard.testing import ConstantEvaluator, ScriptedChatModel
from aspire_guard.verdict import Score

MODEL = ScriptedChatModel("Ada")
CHAIN = ChatPromptTemplate.from_template("{question}") | MODEL | StrOutputParser()


class OnePassage(BaseRetriever):
    """A retriever that returns one passage for any query."""

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        return [Document("Ada keeps it.")]


@tool
def look_up(place: str) -> str:
    """Look a place up."""
    return OnePassage().invoke(place)[0].page_content


def call_a_tool_first(messages: list[BaseMessage]) -> AIMessage:
    if isinstance(messages[-1], ToolMessage):
        return AIMessage("Ada")
    return AIMessage("", tool_calls=[{"name": "look_up", "args": {"place": "?"}, "id": "1"}])


class Recording:
    """A handler, and the list of its observations."""

    def __init__(self, evaluator: ConstantEvaluator, **options: Any) -> None:
        self.observations: list[Observation] = []
        self.handler = AspireCallbackHandler(
            evaluator, on_score=self.observations.append, **options
        )


@pytest.fixture
def recording() -> Iterator[Recording]:
    recording = Recording(ConstantEvaluator(confidence=0.25))
    yield recording
    assert recording.handler.close(timeout=10)


@pytest.mark.parametrize("way", ["invoke", "stream", "astream"])
def test_the_chain_answers_as_ever_and_is_scored(recording: Recording, way: str) -> None:
    """The output is the chain's own. The observation has the exchange, the score and the run."""
    run_id = uuid4()
    config: Any = {
        "callbacks": [recording.handler],
        "run_id": run_id,
        "tags": ["t"],
        "metadata": {"tenant": "x"},
    }
    asked = {"question": "Who?"}
    if way == "astream":

        async def chunks() -> list[str]:
            return [chunk async for chunk in CHAIN.astream(asked, config)]

        assert "".join(asyncio.run(chunks())) == "Ada"
    else:
        assert "".join(getattr(CHAIN, way)(asked, config)) == "Ada"
    assert recording.handler.flush(timeout=10)
    (observation,) = recording.observations
    assert observation.exchange == Exchange(question="Who?", answer="Ada")
    assert observation.score is not None
    assert (observation.score.confidence, observation.error, observation.run_id) == (
        0.25,
        None,
        run_id,
    )
    assert ("t" in observation.tags, observation.metadata["tenant"]) == (True, "x")
    assert (recording.handler.scored, recording.handler.dropped, recording.handler.failed) == (
        1,
        0,
        0,
    )


@pytest.mark.parametrize(
    ("chain", "asked", "context"),
    [
        (MODEL, "Who?", None),
        (OnePassage() | RunnableLambda(lambda documents: "Ada"), "Who?", "Ada keeps it."),
        (
            RunnableLambda(lambda asked: [Document("Ada keeps it.")])
            | RunnableLambda(lambda documents: "Ada"),
            "Who?",
            "Ada keeps it.",
        ),
        (
            create_agent(ScriptedChatModel(call_a_tool_first), [look_up]),
            {"messages": [("human", "Who?")]},
            "Ada keeps it.",
        ),
    ],
    ids=["chat model", "retrieval", "search", "agent"],
)
def test_every_kind_of_chain_is_seen(
    recording: Recording, chain: Runnable[Any, Any], asked: Any, context: str | None
) -> None:
    """Each call is observed once, with its retrieved passages. A message that calls a tool is not an answer."""
    chain.invoke(asked, {"callbacks": [recording.handler]})
    assert recording.handler.flush(timeout=10)
    assert [observation.exchange for observation in recording.observations] == [
        Exchange(question="Who?", context=context, answer="Ada")
    ]


def test_nothing_of_a_run_stays() -> None:
    """No memory is left of runs that ended well, ended in an error, or had nothing to judge."""
    handler = AspireCallbackHandler(ConstantEvaluator(confidence=1.0))

    def broken(question: str) -> str:
        raise ValueError("model is down")

    with handler:
        CHAIN.invoke({"question": "Who?"}, {"callbacks": [handler]})
        nothing: RunnableLambda[Any, Any] = RunnableLambda(lambda number: {"n": number})
        nothing.invoke(3, {"callbacks": [handler]})
        OnePassage().invoke("Who?", {"callbacks": [handler]})
        with pytest.raises(ValueError, match="model is down"):
            RunnableLambda(broken).invoke("Who?", {"callbacks": [handler]})
    assert len(handler._runs) == 0
    assert (handler.scored, handler.dropped, handler.failed) == (1, 0, 0)


def test_answers_beyond_the_capacity_are_dropped() -> None:
    """The chain goes on while the evaluator hangs, and answers beyond the capacity are only counted."""
    begun, go_on = Event(), Event()

    def slow(exchange: Exchange) -> float:
        begun.set()
        go_on.wait(timeout=30)
        return 1.0

    handler = AspireCallbackHandler(ConstantEvaluator(slow), capacity=3, batch=1)
    chain: RunnableLambda[Any, Any] = RunnableLambda(lambda question: "Ada")
    chain.invoke("Who?", {"callbacks": [handler]})
    assert begun.wait(timeout=30)
    for _ in range(10):
        assert chain.invoke("Who?", {"callbacks": [handler]}) == "Ada"
    assert handler.flush(timeout=0.01) is False
    go_on.set()
    assert handler.close(timeout=30)
    assert (handler.scored, handler.dropped) == (4, 7)


def test_answers_that_gathered_are_scored_together() -> None:
    """One call of the evaluator takes all waiting answers, up to the size of a batch."""
    begun, go_on = Event(), Event()

    class Counting(ConstantEvaluator):
        sizes: list[int] = []  # noqa: RUF012

        def score(self, exchanges: Any) -> Any:
            begun.set()
            go_on.wait(timeout=30)
            self.sizes.append(len(exchanges))
            return super().score(exchanges)

    handler = AspireCallbackHandler(Counting(confidence=1.0), batch=4)
    chain: RunnableLambda[Any, Any] = RunnableLambda(lambda question: "Ada")
    chain.invoke("Who?", {"callbacks": [handler]})
    assert begun.wait(timeout=30)
    for _ in range(5):
        chain.invoke("Who?", {"callbacks": [handler]})
    go_on.set()
    assert handler.close(timeout=30)
    assert Counting.sizes == [1, 4, 1]


@pytest.mark.parametrize("failing", ["evaluator", "on_score"])
def test_no_error_reaches_the_chain(failing: str, caplog: pytest.LogCaptureFixture) -> None:
    """A failure is counted, and the next answer is scored again."""
    told: list[Observation] = []

    def first_fails(value: Any) -> Any:
        told.append(value)
        if len(told) == 1:
            raise MemoryError("no memory")
        return 1.0

    evaluator = ConstantEvaluator(first_fails if failing == "evaluator" else 1.0)
    handler = AspireCallbackHandler(
        evaluator, on_score=first_fails if failing == "on_score" else None, batch=1
    )
    with handler:
        for _ in range(2):
            assert CHAIN.invoke({"question": "Who?"}, {"callbacks": [handler]}) == "Ada"
            assert handler.flush(timeout=30)
    assert (handler.failed, handler.scored) == (1, 1 if failing == "evaluator" else 2)


class Scores(ConstantEvaluator):
    """An evaluator that returns the given object as every score, or raises it."""

    given: Any

    def __init__(self, given: Any) -> None:
        super().__init__(confidence=1.0)
        object.__setattr__(self, "given", given)

    def score(self, exchanges: Any) -> Any:
        """The same for every exchange."""
        if isinstance(self.given, Exception):
            raise self.given
        return [self.given] * len(exchanges)


@pytest.mark.parametrize(
    "given", [0.1, Score.model_construct(confidence=None, selection_score=None)]
)
def test_an_object_that_is_not_a_score_is_a_failure(given: Any) -> None:
    """It is counted and reported, and the next answer is scored as usual."""
    seen: list[Observation] = []
    with AspireCallbackHandler(Scores(given), on_score=seen.append, batch=1) as handler:
        for _ in range(2):
            CHAIN.invoke({"question": "Who?"}, {"callbacks": [handler]})
        assert handler.flush(timeout=30)
    assert (handler.failed, handler.scored) == (2, 0)
    for observation in seen:
        message = "expected a confidence in [0, 1] and a selection score"
        assert str(observation.error).startswith(message)
    assert len(seen) == 2


def test_an_interrupt_of_a_graph_does_not_end_the_thread() -> None:
    """The evaluator is asked again for the next answer, and the handler still closes."""
    handler = AspireCallbackHandler(Scores(GraphInterrupt()), batch=1)
    for _ in range(2):
        CHAIN.invoke({"question": "Who?"}, {"callbacks": [handler]})
        assert handler.flush(timeout=30)
    assert handler.close(timeout=30)
    assert handler.failed == 2


def test_closing_takes_no_longer_than_it_may() -> None:
    """The limit holds even if the evaluator hangs and the queue is full."""
    go_on = Event()

    def slow(exchange: Exchange) -> float:
        go_on.wait(timeout=30)
        return 1.0

    handler = AspireCallbackHandler(ConstantEvaluator(slow), capacity=1, batch=1)
    for _ in range(3):
        CHAIN.invoke({"question": "Who?"}, {"callbacks": [handler]})
    assert handler.close(timeout=0.01) is False
    go_on.set()
    assert handler.close(timeout=30)


def test_after_it_is_closed_it_only_counts() -> None:
    """A chain that still has the handler goes on, and closing twice is fine."""
    handler = AspireCallbackHandler(ConstantEvaluator(confidence=1.0))
    assert handler.close(timeout=30)
    assert CHAIN.invoke({"question": "Who?"}, {"callbacks": [handler]}) == "Ada"
    assert handler.close(timeout=30)
    assert (handler.scored, handler.dropped) == (0, 1)


def test_runs_that_never_end_are_forgotten_in_time() -> None:
    """The memory is bounded even if ends of runs get lost."""
    handler = AspireCallbackHandler(ConstantEvaluator(confidence=1.0))
    with handler:
        for _ in range(10_003):
            handler.on_chain_start({}, "Who?", run_id=uuid4())
        assert len(handler._runs) == 10_000
        assert handler.dropped == 3


def test_a_run_of_any_size_is_scored() -> None:
    """A run of an agent may have more runs inside than there may be open runs, and keeps none of them."""
    step: RunnableLambda[Any, Any] = RunnableLambda(lambda number: number)

    def work(question: str, config: RunnableConfig) -> str:
        for number in range(10_050):
            step.invoke(number, config)
        return "Ada"

    handler = AspireCallbackHandler(ConstantEvaluator(confidence=1.0))
    with handler:
        RunnableLambda(work).invoke("Who?", {"callbacks": [handler]})
        assert handler.flush(timeout=30)
        assert len(handler._runs) == 0
    assert (handler.scored, handler.dropped) == (1, 0)


@pytest.mark.parametrize("failing", ["evaluator", "on_score"])
@pytest.mark.parametrize("error", [SystemExit("zanzibar"), KeyboardInterrupt()])
def test_an_exception_that_ends_programs_does_not_end_the_thread(
    failing: str, error: BaseException
) -> None:
    """It is counted as a failure, and the handler scores on and closes."""
    given: list[Any] = [error]

    def first_fails(value: Any) -> float:
        if given:
            raise given.pop()
        return 1.0

    evaluator = ConstantEvaluator(first_fails if failing == "evaluator" else 1.0)
    on_score: Any = first_fails if failing == "on_score" else None
    handler = AspireCallbackHandler(evaluator, on_score=on_score, batch=1)
    for _ in range(2):
        CHAIN.invoke({"question": "Who?"}, {"callbacks": [handler]})
        assert handler.flush(timeout=30)
    assert handler.close(timeout=30)
    assert (handler.failed, handler.scored) == (1, 1 if failing == "evaluator" else 2)


def _score_in_child(handler: AspireCallbackHandler, results: Any) -> None:
    CHAIN.invoke({"question": "Who?"}, {"callbacks": [handler]})
    results.put((handler.flush(timeout=30), handler.scored, handler.dropped))


def test_a_forked_child_scores_its_own_answers() -> None:
    """The child has a thread of its own, even if the parent forked while its evaluator was at work."""
    begun, go_on = Event(), Event()
    parent = os.getpid()

    def slow_in_parent(exchange: Exchange) -> float:
        if os.getpid() == parent:
            begun.set()
            go_on.wait(timeout=30)
        return 1.0

    handler = AspireCallbackHandler(ConstantEvaluator(slow_in_parent), batch=1)
    for _ in range(2):
        CHAIN.invoke({"question": "Who?"}, {"callbacks": [handler]})
    assert begun.wait(timeout=30)
    processes = get_context("fork")
    results = processes.SimpleQueue()
    child = processes.Process(target=_score_in_child, args=(handler, results))
    child.start()
    child.join(timeout=60)
    assert child.exitcode == 0
    assert results.get() == (True, 1, 0)
    go_on.set()
    assert handler.close(timeout=30)
    assert handler.scored == 2


def test_the_places_of_question_and_answer_can_be_given() -> None:
    """A place is a key or a function, as for the guard."""
    recording = Recording(
        ConstantEvaluator(confidence=1.0),
        question="asked",
        answer=lambda input, output: output["said"],
    )
    says: RunnableLambda[Any, Any] = RunnableLambda(lambda input: {"said": "Ada"})
    with recording.handler:
        says.invoke({"asked": "Who?"}, {"callbacks": [recording.handler]})
    assert [observation.exchange for observation in recording.observations] == [
        Exchange(question="Who?", answer="Ada")
    ]
