"""What leaves a guard around real chains when their answer is rejected."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import pytest
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, ToolCall
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import BaseModel

from aspire_guard import AspireGuard, Exchange, Fallback, RoutingPolicy
from aspire_guard.testing import ConstantEvaluator, ScriptedChatModel

ABSTENTION = "I can't answer this question."
REFUSING = ConstantEvaluator(confidence=0.1)
TRUSTING = ConstantEvaluator(confidence=0.9)


class Passages(BaseRetriever):
    """Returns one passage for any query."""

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        return [Document("Ada. Room 4.", metadata={"source": "keys.md"})]


def test_a_retrieval_chain_keeps_its_history_and_its_passages() -> None:
    """The answer goes, and an earlier turn that begins with the same word stays."""
    prompt = ChatPromptTemplate([MessagesPlaceholder("chat_history"), ("human", "{input}")])
    model = ScriptedChatModel("Ada.")
    # The chain that LangChain's create_retrieval_chain makes.
    chain = RunnablePassthrough.assign(
        context=RunnableLambda(lambda input: input["input"]) | Passages()
    ).assign(answer=prompt | model | StrOutputParser())
    history = [HumanMessage("Who?"), AIMessage("Ada. She sits in the office.")]
    input = {"input": "Are you sure?", "chat_history": history, "user_language": "Ada"}
    assert AspireGuard(chain, evaluator=REFUSING).invoke(input) == {
        **input,
        "context": [Document("Ada. Room 4.", metadata={"source": "keys.md"})],
        "answer": ABSTENTION,
    }


class Keeper(BaseModel):
    """A structured answer."""

    name: str


@pytest.mark.parametrize("answer", ["parsed", lambda input, output: output["parsed"].name])
def test_structured_output_with_its_raw_message(answer: Any) -> None:
    """The raw message holds the answer in the arguments of its tool call."""
    call = ToolCall(name="Keeper", args={"name": "Bob"}, id="1")
    model = ScriptedChatModel(AIMessage("", id="m", tool_calls=[call]))
    chain = model.with_structured_output(Keeper, include_raw=True)
    output = AspireGuard(chain, evaluator=REFUSING, answer=answer).invoke("Who?")
    assert output["parsed"] == Keeper(name=ABSTENTION)
    assert (output["raw"].content, output["raw"].id) == (ABSTENTION, "m")
    assert "Bob" not in str(output)


def test_no_draft_of_a_graph_leaves() -> None:
    """Drafts before a critique, and the report of a worker, were accepted by nobody."""

    def work(state: MessagesState) -> dict[str, Any]:
        return {"messages": [HumanMessage("Bob has the key.", name="worker")]}

    def draft(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage("Perhaps Bob or Eve.", name="writer")]}

    def criticize(state: MessagesState) -> dict[str, Any]:
        return {"messages": [HumanMessage("Decide!")]}

    def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage("Bob has the key.")]}

    builder = StateGraph(MessagesState).add_sequence([work, draft, criticize, answer])
    graph = builder.add_edge(START, "work").compile()
    earlier = [HumanMessage("Hi"), AIMessage("Hello, I am Bob."), HumanMessage("Who?")]
    output = AspireGuard(graph, evaluator=REFUSING).invoke({"messages": earlier})
    kept, added = output["messages"][:3], output["messages"][3:]
    assert kept == earlier
    assert [str(message.text) for message in added] == [
        ABSTENTION,
        ABSTENTION,
        "Decide!",
        ABSTENTION,
    ]


@dataclass(frozen=True)
class Report:
    text: str
    pages: int = 4


class Pair(NamedTuple):
    text: str
    pages: int = 4


class Label(enum.Enum):
    YES = "yes"
    NO = "no"


class Choice(BaseModel):
    """An answer that takes no other text."""

    label: Literal["yes", "no"]


def doubt_second(exchange: Exchange) -> float:
    return 0.1 if exchange.question == "second?" else 0.9


OBJECTS: dict[str, tuple[Any, Any, Any]] = {
    "dataclass": (Report("Bob"), "text", Report(ABSTENTION)),
    "named tuple": (Pair("Bob"), "text", Pair(ABSTENTION)),
    "model": (Keeper(name="Bob"), "name", Keeper(name=ABSTENTION)),
    "object in a dict": (
        {"answer": Report("Bob")},
        lambda i, o: o["answer"].text,
        {"answer": Report(ABSTENTION)},
    ),
    "model in a dict": (
        {"answer": Keeper(name="Bob")},
        "answer",
        {"answer": Keeper(name=ABSTENTION)},
    ),
    "enumeration in a dict": ({"answer": Label.YES}, "answer", {"answer": ABSTENTION}),
    "literal in a dict": ({"answer": Choice(label="yes")}, "answer", {"answer": ABSTENTION}),
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_a_rejection_in_a_batch_of_objects(kind: str) -> None:
    """Each output keeps its type where that allows an abstention, and the others of the batch come out unchanged."""
    output, answer, abstained = OBJECTS[kind]
    guard = AspireGuard(
        RunnableLambda(lambda question: output),
        evaluator=ConstantEvaluator(doubt_second),
        answer=answer,
    )
    assert guard.batch(["first?", "second?", "third?"]) == [output, abstained, output]


def test_a_type_without_a_place_for_an_abstention() -> None:
    """A warning comes with the first accepted output. A rejection gives a verdict and the text of the abstention."""
    guard = AspireGuard(
        RunnableLambda(lambda question: Choice(label="yes")),
        evaluator=ConstantEvaluator(doubt_second),
        answer="label",
    )
    with pytest.warns(UserWarning, match="found Choice without one; .* give the policy a Custom"):
        assert guard.invoke("first?") == Choice(label="yes")
    assert guard.batch(["first?", "second?"]) == [Choice(label="yes"), ABSTENTION]
    verdicts = guard.judge_batch(["first?", "second?"])
    assert [verdict.accepted for verdict in verdicts] == [True, False]


# Ways in which a chain hands on the output of a guard inside it.
CHAINS: dict[str, Callable[[Any], Any]] = {
    "text": lambda guard: guard,
    "after a parser": lambda guard: guard | StrOutputParser(),
    "under a key": lambda guard: RunnablePassthrough.assign(answer=guard),
}


class TestGuardsInsideGuards:
    """An abstention of a guard inside the chain is no answer, however confident the evaluator is of it."""

    @pytest.mark.parametrize("kind", CHAINS)
    @pytest.mark.parametrize("release", ["answer", "sentence"])
    def test_the_outer_guard_does_not_accept_it(self, kind: str, release: Any) -> None:
        """It abstains too, in all methods."""
        inner = AspireGuard(ScriptedChatModel("Bob"), evaluator=REFUSING)
        chain = CHAINS[kind](RunnableLambda(lambda input: input["question"]) | inner)
        outer = AspireGuard(chain, evaluator=TRUSTING, release=release)
        verdict = outer.judge({"question": "Who?"})
        assert (verdict.accepted, verdict.released, verdict.route) == (False, False, "abstain")
        assert verdict.reason == "a guard inside the chain abstained"
        assert asyncio.run(outer.ajudge({"question": "Who?"})).accepted is False
        pieces = list(outer.stream({"question": "Who?"}))
        assert ABSTENTION in str(pieces)
        assert '"accepted": true' not in str(pieces)

    def test_the_outer_guard_asks_its_fallback(self) -> None:
        """The routes of the lowest confidence are taken."""
        inner = AspireGuard(RunnableLambda(lambda question: "Bob"), evaluator=REFUSING)
        policy = RoutingPolicy(otherwise=Fallback(RunnableLambda(lambda question: "Ada")))
        assert AspireGuard(inner, evaluator=TRUSTING, policy=policy).invoke("Who?") == "Ada"

    def test_a_guard_on_a_part_of_the_chain_does_not_matter(self) -> None:
        """Only an answer that is the abstention is withheld."""

        def answer(question: str) -> str:
            inner.invoke(question)
            return "Ada"

        inner = AspireGuard(RunnableLambda(lambda question: "Bob"), evaluator=REFUSING)
        assert AspireGuard(RunnableLambda(answer), evaluator=TRUSTING).invoke("Who?") == "Ada"
