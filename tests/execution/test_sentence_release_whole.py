"""Sentence release of outputs that are not text, which are judged as a whole like in `invoke`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.output_parsers import JsonOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough

from aspire_guard.evaluators.own_scores import keep_own_score
from aspire_guard.exchange import Exchange, read_answer
from aspire_guard.guard import AspireGuard
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.routing.routes import Fallback
from aspire_guard.testing import ConstantEvaluator, ScriptedChatModel
from aspire_guard.verdict import Score

ANSWER = "Ada keeps it. Zanq."
ABSTENTION = "I can't answer this question."
SYNC_AND_ASYNC = pytest.mark.parametrize("way", ["sync", "async"])
DECIDED = pytest.mark.parametrize(("confidence", "answer"), [(1.0, ANSWER), (0.0, ABSTENTION)])


def stream_one_chunk(
    chain: Any, evaluator: Any, way: str, config: Any = None, **options: Any
) -> Any:
    """Return the only chunk that the guard streams."""
    guard = AspireGuard(chain, evaluator=evaluator, release="sentence", **options)

    async def chunks() -> list[Any]:
        return [chunk async for chunk in guard.astream("Who?", config)]

    (chunk,) = asyncio.run(chunks()) if way == "async" else list(guard.stream("Who?", config))
    return chunk


class Scripted:
    """Counts how often a model is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.model = ScriptedChatModel(self.answer)

    def answer(self, messages: list[BaseMessage]) -> AIMessage:
        self.asked += 1
        return AIMessage(ANSWER)

    @property
    def agent(self) -> Runnable[Any, Any]:
        to_state: RunnableLambda[Any, Any] = RunnableLambda(
            lambda question: {"messages": [("human", question)]}
        )
        return to_state | create_agent(self.model, [])


@SYNC_AND_ASYNC
@DECIDED
def test_a_dict_is_judged_whole(way: str, confidence: float, answer: str) -> None:
    """A dict has no sentences to release, so it is judged as a whole."""
    chain: RunnableLambda[Any, Any] = RunnableLambda(lambda question: {"answer": ANSWER, "n": 1})
    assert stream_one_chunk(chain, ConstantEvaluator(confidence), way) == {"answer": answer, "n": 1}


@SYNC_AND_ASYNC
@DECIDED
def test_json_is_judged_whole(way: str, confidence: float, answer: str) -> None:
    """A JSON parser streams the whole object with each token, and the last object is the output."""
    chain = ScriptedChatModel(json.dumps({"answer": ANSWER, "n": 1})) | JsonOutputParser()
    assert stream_one_chunk(chain, ConstantEvaluator(confidence), way) == {"answer": answer, "n": 1}


@SYNC_AND_ASYNC
@pytest.mark.parametrize(
    "around",
    [
        lambda agent: agent,
        lambda agent: agent.with_retry(),
        lambda agent: agent.with_fallbacks([RunnableLambda(lambda question: "Bob.")]),
        lambda agent: agent | RunnableLambda(lambda state: state["messages"][-1]),
    ],
    ids=["the last step", "bound", "with fallbacks", "a step before the last"],
)
def test_a_graph_is_judged_whole(
    way: str,
    around: Callable[[Runnable[Any, Any]], Runnable[Any, Any]],
) -> None:
    """A graph streams its nodes' updates, not its output, so it is judged as a whole and runs once."""
    script = Scripted()
    assert (
        read_answer(stream_one_chunk(around(script.agent), ConstantEvaluator(0.0), way))
        == ABSTENTION
    )
    assert script.asked == 1


@SYNC_AND_ASYNC
def test_what_is_judged_whole_runs_once(way: str) -> None:
    """The streamed output is judged, and the chain is not run again."""
    script = Scripted()
    stream_one_chunk(
        {"answer": script.model, "question": RunnablePassthrough()}, ConstantEvaluator(1.0), way
    )
    assert script.asked == 1


class OnePassage(BaseRetriever):
    """Returns one passage for any query."""

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        return [Document("Ada has the key.")]


@SYNC_AND_ASYNC
def test_what_was_retrieved_is_the_context(way: str) -> None:
    """The retrieved documents are the context, under any key of the output."""
    seen: list[Exchange] = []

    def note(exchange: Exchange) -> float:
        seen.append(exchange)
        return 1.0

    answer = ChatPromptTemplate.from_template("{docs} {question}") | ScriptedChatModel(ANSWER)
    chain = {"docs": OnePassage(), "question": RunnablePassthrough()} | RunnablePassthrough.assign(
        answer=answer
    )
    stream_one_chunk(chain, ConstantEvaluator(note), way)
    assert seen == [Exchange(question="Who?", context="Ada has the key.", answer=ANSWER)]


class Fingerprinted(ConstantEvaluator):
    """An evaluator that can tell whose score was kept."""

    fingerprint = "evaluator-1"


@SYNC_AND_ASYNC
def test_a_model_s_own_score_is_used(way: str) -> None:
    """The model scored its answer as it wrote it, so the evaluator is not asked."""
    score = Score(selection_score=-0.5, confidence=0.875)

    def answer(question: str) -> dict[str, str]:
        exchange = Exchange(question=question, answer=ANSWER)
        keep_own_score(Fingerprinted(0.0), exchange, score)
        return {"answer": ANSWER}

    chain: RunnableLambda[Any, Any] = RunnableLambda(answer)
    assert stream_one_chunk(chain, Fingerprinted(0.0), way) == {"answer": ANSWER}


def test_a_fallback_may_be_async_only() -> None:
    """An async stream can ask a fallback that is async only."""

    async def answer(question: str) -> dict[str, str]:
        return {"answer": ANSWER}

    chain: RunnableLambda[Any, Any] = RunnableLambda(lambda question: {"answer": "Bob."})
    policy = RoutingPolicy(otherwise=Fallback(RunnableLambda(answer)))
    doubts_bob = ConstantEvaluator(lambda exchange: 0.0 if "Bob" in exchange.answer else 1.0)
    assert stream_one_chunk(chain, doubts_bob, "async", policy=policy) == {"answer": ANSWER}


class Listener(BaseCallbackHandler):
    """Notes the names of runs and the verdicts."""

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.verdicts: list[Any] = []

    def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
        """Notes the run."""
        self.runs.append(kwargs["name"])

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        """Notes the verdict."""
        self.verdicts.append(data)


@SYNC_AND_ASYNC
def test_what_is_judged_whole_is_one_run_with_one_verdict(way: str) -> None:
    """A trace shows one run of the guard with the chain inside, and one verdict with its timings."""
    listener = Listener()

    def answer(question: str) -> dict[str, str]:
        return {"answer": ANSWER}

    stream_one_chunk(RunnableLambda(answer), ConstantEvaluator(1.0), way, {"callbacks": [listener]})
    assert listener.runs == ["AspireGuard", "answer"]
    (verdict,) = listener.verdicts
    assert verdict["accepted"]
    assert verdict["timings"]["generate"] > 0
