"""The guard as a drop-in for a chain: types, inputs, composition."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import pytest
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import (
    Runnable,
    RunnableConfig,
    RunnableLambda,
    RunnablePassthrough,
)

from aspire_guard.errors import EvaluationError, ExchangeError
from aspire_guard.exchange import Exchange
from aspire_guard.guard import AspireGuard
from aspire_guard.review import ReviewQueue
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.routing.routes import HumanReview
from aspire_guard.testing import ConstantEvaluator
from aspire_guard.verdict import Verdict

ABSTENTION = "I can't answer this question."
TRUSTING = ConstantEvaluator(confidence=0.75)
REFUSING = ConstantEvaluator(confidence=0.25)
PROMPT = ChatPromptTemplate.from_template("{context}\n{question}")


class PassageRetriever(BaseRetriever):
    """Returns its passages for any query."""

    passages: list[str]

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        return [Document(passage) for passage in self.passages]


class RerankingRetriever(BaseRetriever):
    """Returns the first document of another retriever."""

    candidates: BaseRetriever

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        return self.candidates.invoke(query, {"callbacks": run_manager.get_child()})[:1]


def make_chain(text: Any) -> RunnableLambda[Any, Any]:
    return RunnableLambda(lambda input: text)


def make_recording_evaluator(seen: list[Exchange]) -> ConstantEvaluator:
    def confidence(exchange: Exchange) -> float:
        seen.append(exchange)
        return 1.0

    return ConstantEvaluator(confidence)


def test_a_string_chain() -> None:
    """A string chain returns a trusted answer, and the abstention in place of any other."""
    assert AspireGuard(make_chain("Ada"), evaluator=TRUSTING).invoke("Who?") == "Ada"
    assert AspireGuard(make_chain("Ada"), evaluator=REFUSING).invoke("Who?") == ABSTENTION


def test_a_message_chain() -> None:
    """A message keeps its id and carries the verdict in its metadata."""
    message = AIMessage("Ada", id="m1", response_metadata={"model": "m"})
    released = AspireGuard(make_chain(message), evaluator=TRUSTING).invoke([HumanMessage("Who?")])
    assert (released.content, released.id, released.response_metadata["model"]) == (
        "Ada",
        "m1",
        "m",
    )
    assert released.response_metadata["aspire_guard"]["accepted"] is True
    assert message.response_metadata == {"model": "m"}

    held = AspireGuard(make_chain(message), evaluator=REFUSING).invoke([HumanMessage("Who?")])
    assert (held.content, held.id, list(held.response_metadata)) == (
        ABSTENTION,
        "m1",
        ["aspire_guard"],
    )
    assert Verdict.model_validate(held.response_metadata["aspire_guard"]).confidence == 0.25


def test_a_dict_chain() -> None:
    """An accepted dict comes out unchanged, and the answer of a rejected dict is replaced."""
    output = {"answer": "Ada", "source_documents": [Document("Somebody keeps it.")]}
    assert AspireGuard(make_chain(output), evaluator=TRUSTING).invoke("Who?") == output
    assert AspireGuard(make_chain(output), evaluator=REFUSING).invoke("Who?") == {
        **output,
        "answer": ABSTENTION,
    }


def test_a_message_in_a_dict_carries_the_verdict() -> None:
    """A message under the answer key is treated like a message that is the whole output."""
    released = AspireGuard(make_chain({"answer": AIMessage("Ada")}), evaluator=TRUSTING).invoke(
        "Who?"
    )
    assert released["answer"].response_metadata["aspire_guard"]["route"] == "accept"


def test_judge_gives_the_verdict() -> None:
    """judge and ajudge return the verdict that invoke decides by."""
    guard = AspireGuard(make_chain("Ada"), evaluator=REFUSING)
    for verdict in (guard.judge("Who?"), asyncio.run(guard.ajudge("Who?"))):
        assert (verdict.accepted, verdict.confidence, verdict.threshold) == (False, 0.25, 0.5)


def test_the_policy_sets_threshold_and_abstention() -> None:
    """One evaluator serves stricter and looser guards."""
    loose = RoutingPolicy(threshold=0.25, abstention="Pass.")
    strict = RoutingPolicy(threshold=0.26, abstention="Pass.")
    assert AspireGuard(make_chain("Ada"), evaluator=REFUSING, policy=loose).invoke("Who?") == "Ada"
    assert (
        AspireGuard(make_chain("Ada"), evaluator=REFUSING, policy=strict).invoke("Who?") == "Pass."
    )


def test_a_message_that_calls_tools_passes() -> None:
    """A message that calls tools passes unscored, and judging it is an error."""
    message = AIMessage("", tool_calls=[{"name": "look_up", "args": {"key": 1}, "id": "1"}])
    guard = AspireGuard(make_chain(message), evaluator=REFUSING)
    assert guard.invoke("Who?") is message
    assert asyncio.run(guard.ainvoke("Who?")) is message
    with pytest.raises(
        ExchangeError, match="expected final text, found a message that calls tools"
    ):
        guard.judge("Who?")


def test_a_retrieval_chain_is_judged_on_what_it_retrieved() -> None:
    """The context is the documents that the retriever inside the chain returned."""
    seen: list[Exchange] = []
    retrieve = RunnableLambda(lambda input: input["question"]) | PassageRetriever(
        passages=["Ada keeps it.", "So?"]
    )
    chain = (
        RunnablePassthrough.assign(context=retrieve)
        | PROMPT
        | FakeListChatModel(responses=["Ada"])
        | StrOutputParser()
    )
    guard = AspireGuard(chain, evaluator=make_recording_evaluator(seen))
    assert guard.invoke({"question": "Who?"}) == "Ada"
    assert asyncio.run(guard.ainvoke({"question": "Who?"})) == "Ada"
    assert seen == [Exchange(question="Who?", context="Ada keeps it.\n\nSo?", answer="Ada")] * 2


def test_only_the_outermost_retriever_counts() -> None:
    """Candidates that a reranking retriever drops were never read by the model."""
    seen: list[Exchange] = []
    retriever = RerankingRetriever(candidates=PassageRetriever(passages=["Read.", "Dropped."]))
    AspireGuard(retriever | make_chain("Ada"), evaluator=make_recording_evaluator(seen)).invoke(
        "Who?"
    )
    assert seen[0].context == "Read."


def test_the_graph_shows_the_guard_after_the_chain() -> None:
    """The chain's steps stay visible, the guard is the last of them."""
    graph = AspireGuard(
        PROMPT | FakeListChatModel(responses=["Ada"]), evaluator=TRUSTING
    ).get_graph()
    names = {node.id: node.name for node in graph.nodes.values()}
    assert [(names[edge.source], names[edge.target]) for edge in graph.edges] == [
        ("PromptInput", "ChatPromptTemplate"),
        ("ChatPromptTemplate", "FakeListChatModel"),
        ("FakeListChatModel", "AspireGuard"),
        ("AspireGuard", "FakeListChatModelOutput"),
    ]


Kind = TypeVar("Kind")


class TypedStep(Runnable[Any, str]):
    """A step that always answers alike."""

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> str:
        return "Ada"


class UntypedStep(TypedStep, Generic[Kind]):
    """A step whose input and output types LangChain can't find, since its own bases don't name them."""


@pytest.mark.parametrize(
    "wrap",
    [
        lambda guard: guard,
        lambda guard: RunnableLambda(str) | guard,
        lambda guard: AspireGuard(guard, evaluator=TRUSTING),
        lambda guard: guard.with_retry(),
        lambda guard: guard.with_config(tags=["shown"]),
    ],
    ids=["alone", "in a sequence", "in a guard", "with retries", "with a config"],
)
def test_a_chain_without_types_can_be_drawn(
    wrap: Callable[[AspireGuard], Runnable[Any, Any]],
) -> None:
    """The guard's node and an output are there, although the chain does not tell what it returns."""
    guard = AspireGuard(UntypedStep(), evaluator=TRUSTING)
    with pytest.raises(TypeError):
        guard.get_output_schema()
    graph = wrap(guard).get_graph()
    names = [node.name for node in graph.nodes.values()]
    assert names[-2:] == ["AspireGuard", "AspireGuardOutput"]
    assert "UntypedStep" in names
    assert "AspireGuardOutput" in graph.draw_mermaid()


def test_it_is_not_serialisable() -> None:
    """A guard holds a model, so LangChain must not serialise it."""
    assert AspireGuard.is_lc_serializable() is False


def test_the_chains_error_is_the_guards() -> None:
    """A chain that raises is not an answer of low confidence."""

    def broken(input: str) -> str:
        raise ConnectionError("model is down")

    guard = AspireGuard(RunnableLambda(broken), evaluator=TRUSTING)
    with pytest.raises(ConnectionError, match="model is down"):
        guard.invoke("Who?")
    with pytest.raises(ConnectionError, match="model is down"):
        asyncio.run(guard.ainvoke("Who?"))


def test_an_evaluator_that_fails_holds_the_answer_back() -> None:
    """By default the guard abstains, and the verdict tells why without quoting the answer."""
    guard = AspireGuard(make_chain("zanzibar"), evaluator=ConstantEvaluator(float("nan")))
    assert guard.invoke("Where?") == ABSTENTION
    verdict = asyncio.run(guard.ajudge("Where?"))
    assert (verdict.accepted, verdict.confidence, verdict.score) == (False, None, None)
    assert verdict.error is not None
    assert verdict.error.startswith(
        "expected a score; the evaluator raised ValidationError: 1 validation error"
    )
    assert "zanzibar" not in verdict.model_dump_json()


def test_a_value_that_is_not_a_score_withholds_the_answer() -> None:
    """The other answers of a batch are judged, and the verdict names the type that was found."""

    class Careless(ConstantEvaluator):
        def score(self, exchanges: Sequence[Exchange]) -> list[Any]:
            scores = super().score(exchanges)
            return [
                {"confidence": 0.9} if exchange.answer == "Ada" else score
                for exchange, score in zip(exchanges, scores, strict=True)
            ]

    guard = AspireGuard(RunnableLambda(lambda name: name), evaluator=Careless(confidence=0.9))
    assert guard.batch(["Ada", "Bob"]) == [ABSTENTION, "Bob"]
    assert guard.judge("Ada").error == (
        "expected a confidence in [0, 1] and a selection score; found dict; fix the evaluator"
    )


def test_an_evaluator_that_fails_can_raise() -> None:
    """With on_error="raise" the caller gets an error, which has the evaluator's as its cause on request."""

    def out_of_memory(exchange: Exchange) -> float:
        raise MemoryError("no memory")

    causes = []
    for original_errors in (False, True):
        guard = AspireGuard(
            make_chain("Ada"),
            evaluator=ConstantEvaluator(out_of_memory),
            policy=RoutingPolicy(on_error="raise"),
            original_errors=original_errors,
        )
        with pytest.raises(
            EvaluationError, match="the evaluator raised MemoryError: no memory"
        ) as raised:
            guard.invoke("Who?")
        causes.append(type(raised.value.__cause__))
    assert causes == [type(None), MemoryError]


def test_parallel_calls_do_not_mix() -> None:
    """Each of many concurrent calls gets its own answer, judged with its own context."""

    async def slowly(input: dict[str, str]) -> str:
        await PassageRetriever(passages=[f"passage {input['question']}"]).ainvoke(input["question"])
        await asyncio.sleep(0.001 * (7 - int(input["question"]) % 7))
        return f"answer {input['question']}"

    def own_passage_and_even(exchange: Exchange) -> float:
        own = exchange.answer.removeprefix("answer ") == exchange.question
        return float(
            own
            and exchange.context == f"passage {exchange.question}"
            and int(exchange.question) % 2 == 0
        )

    guard = AspireGuard(RunnableLambda(slowly), evaluator=ConstantEvaluator(own_passage_and_even))

    async def all_at_once() -> list[str]:
        return list(await asyncio.gather(*(guard.ainvoke({"question": str(i)}) for i in range(40))))

    assert asyncio.run(all_at_once()) == [
        f"answer {i}" if i % 2 == 0 else ABSTENTION for i in range(40)
    ]


@pytest.mark.parametrize("name", ["bind_tools", "with_structured_output"])
def test_a_method_of_models_says_where_it_belongs(name: str) -> None:
    """Frameworks that look for the method find that the guard has none, and a user finds the way out."""
    guard = AspireGuard(make_chain("Ada"), evaluator=TRUSTING)
    assert not hasattr(guard, name)
    with pytest.raises(AttributeError, match=f"expected {name} of a chat model, .*; call it on"):
        getattr(guard, name)
    with pytest.raises(AttributeError, match="no_such_"):
        getattr(guard, f"no_such_{name}")


def test_a_guard_with_a_review_queue_can_be_pickled(tmp_path: Path) -> None:
    """The copy, as in another process, has its own connection to the same database."""
    queue = ReviewQueue(f"sqlite:///{tmp_path}/reviews.db")
    policy = RoutingPolicy(otherwise=HumanReview(queue))
    guard = AspireGuard(FakeListChatModel(responses=["Bob"] * 2), evaluator=REFUSING, policy=policy)
    for copied in (pickle.loads(pickle.dumps(guard)), copy.deepcopy(guard)):
        ticket = copied.judge("Who?").ticket
        assert queue.get(str(ticket)).item.answer == "Bob"


def test_a_guard_with_fallbacks_judges_as_before() -> None:
    """Everything that a guard can do, beyond running, it can do with fallbacks too."""
    guard = AspireGuard(make_chain("Ada"), evaluator=TRUSTING)
    with_fallbacks = guard.with_fallbacks([make_chain("Bob")])
    assert with_fallbacks.judge("Who?").confidence == 0.75
    assert with_fallbacks.policy is guard.policy
    with pytest.raises(AttributeError, match="expected bind_tools of a chat model"):
        getattr(with_fallbacks, "bind_" + "tools")
