"""Sentence release around what is no text: the output is judged whole, as `invoke` judges it."""

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

from aspire_guard.exchange import Exchange, answer_text
from aspire_guard.guard import AspireGuard
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.routing.routes import Fallback
from aspire_guard.testing import ConstantEvaluator, ScriptedChatModel
from aspire_guard.verdict import Score

ANSWER = "Ada keeps it. Zanq."
ABSTENTION = "I can't answer this question."
SYNC_AND_ASYNC = pytest.mark.parametrize("way", ["sync", "async"])
DECIDED = pytest.mark.parametrize(("confidence", "said"), [(1.0, ANSWER), (0.0, ABSTENTION)])


def streamed(chain: Any, evaluator: Any, way: str, config: Any = None, **options: Any) -> Any:
    """The one chunk that the guard streams."""
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
def test_a_dict_is_judged_whole(way: str, confidence: float, said: str) -> None:
    """Of a dict nobody knows which part is a sentence."""
    chain: RunnableLambda[Any, Any] = RunnableLambda(lambda question: {"answer": ANSWER, "n": 1})
    assert streamed(chain, ConstantEvaluator(confidence), way) == {"answer": said, "n": 1}


@SYNC_AND_ASYNC
@DECIDED
def test_json_is_judged_whole(way: str, confidence: float, said: str) -> None:
    """A parser streams the object again with each token; the last one is the output."""
    chain = ScriptedChatModel(json.dumps({"answer": ANSWER, "n": 1})) | JsonOutputParser()
    assert streamed(chain, ConstantEvaluator(confidence), way) == {"answer": said, "n": 1}


@SYNC_AND_ASYNC
@DECIDED
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
    confidence: float,
    said: str,
    around: Callable[[Runnable[Any, Any]], Runnable[Any, Any]],
) -> None:
    """It streams what its nodes change, which is not its output; it runs once."""
    script = Scripted()
    assert answer_text(streamed(around(script.agent), ConstantEvaluator(confidence), way)) == said
    assert script.asked == 1


@SYNC_AND_ASYNC
def test_what_is_judged_whole_runs_once(way: str) -> None:
    """What the chain has streamed is judged; it is not asked again for its output."""
    script = Scripted()
    streamed(
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
    """Wherever the chain puts it."""
    seen: list[Exchange] = []

    def note(exchange: Exchange) -> float:
        seen.append(exchange)
        return 1.0

    answer = ChatPromptTemplate.from_template("{docs} {question}") | ScriptedChatModel(ANSWER)
    chain = {"docs": OnePassage(), "question": RunnablePassthrough()} | RunnablePassthrough.assign(
        answer=answer
    )
    streamed(chain, ConstantEvaluator(note), way)
    assert seen == [Exchange(question="Who?", context="Ada has the key.", answer=ANSWER)]


class Fingerprinted(ConstantEvaluator):
    """An evaluator that can tell whose score a message carries."""

    fingerprint = "evaluator-1"


@SYNC_AND_ASYNC
def test_a_carried_score_is_used(way: str) -> None:
    """The model scored its answer as it wrote it, so the evaluator is not asked."""
    score = Score(selection_score=-0.5, confidence=0.875)
    carried = {"evaluator": "evaluator-1", "score": score.model_dump()}
    model = ScriptedChatModel(AIMessage(ANSWER, response_metadata={"aspire_score": carried}))
    chain: RunnableLambda[Any, Any] = RunnableLambda(
        lambda question: {"answer": str(model.invoke(question).text)}
    )
    assert streamed(chain, Fingerprinted(0.0), way) == {"answer": ANSWER}


def test_a_fallback_may_be_async_only() -> None:
    """An async stream asks it in its own loop."""

    async def answer(question: str) -> dict[str, str]:
        return {"answer": ANSWER}

    chain: RunnableLambda[Any, Any] = RunnableLambda(lambda question: {"answer": "Bob."})
    policy = RoutingPolicy(otherwise=Fallback(RunnableLambda(answer)))
    doubts_bob = ConstantEvaluator(lambda exchange: 0.0 if "Bob" in exchange.answer else 1.0)
    assert streamed(chain, doubts_bob, "async", policy=policy) == {"answer": ANSWER}


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
    """The guard's, with the chain's inside it, which took some time."""
    listener = Listener()

    def answer(question: str) -> dict[str, str]:
        return {"answer": ANSWER}

    streamed(RunnableLambda(answer), ConstantEvaluator(1.0), way, {"callbacks": [listener]})
    assert listener.runs == ["AspireGuard", "answer"]
    (verdict,) = listener.verdicts
    assert verdict["accepted"]
    assert verdict["timings"]["generate"] > 0
