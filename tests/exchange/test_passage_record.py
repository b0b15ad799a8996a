"""Passages of steps inside a chain, of which those count that the answering model read."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.messages import ToolMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough
from langchain_core.tools import tool
from langgraph.types import Command

from aspire_guard.exchange import Exchange
from aspire_guard.exchange.run_recorder import RunRecorder
from aspire_guard.testing import ScriptedChatModel

ADA, BOB, EVE = (Document(f"{name} has a key.") for name in ("Ada", "Bob", "Eve"))
MODEL = ScriptedChatModel("Ada")


class Found(BaseRetriever):
    """A retriever that finds these documents."""

    found: list[Document]

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        return self.found


class Reranked(BaseRetriever):
    """A retriever that keeps the best of what another one finds."""

    inner: BaseRetriever
    kept: int

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        config: Any = {"callbacks": run_manager.get_child()}
        return self.inner.invoke(query, config)[: self.kept]


def first(documents: list[Document]) -> list[Document]:
    """Keep the first document."""
    return documents[:1]


def shorten(documents: list[Document]) -> list[Document]:
    """Shorten the texts of the documents."""
    return [Document(document.page_content[:3]) for document in documents]


def read(chain: Runnable[Any, Any]) -> tuple[str | None, str | None]:
    """Run a chain, and return the context of its answer and the context's source."""
    recorder = RunRecorder()
    output = chain.invoke("Who?", {"callbacks": [recorder]})
    exchange = recorder.read_exchange(Exchange.from_run, "Who?", output)
    return exchange.context, exchange.context_source


def join(*documents: Document) -> str:
    return "\n\n".join(document.page_content for document in documents)


RETRIEVER = Found(found=[ADA, BOB])
SAY_ADA: RunnableLambda[Any, Any] = RunnableLambda(lambda documents: "Ada")
BOTH = ChatPromptTemplate.from_template("{context} {background}")


@pytest.mark.parametrize(
    ("chain", "context"),
    [
        (RETRIEVER | SAY_ADA, (join(ADA, BOB), "retriever")),
        (Reranked(inner=RETRIEVER, kept=1) | SAY_ADA, (join(ADA), "retriever")),
        (Reranked(inner=RETRIEVER, kept=0) | SAY_ADA, (None, None)),
        ((RETRIEVER | RunnableLambda(first)) | SAY_ADA, (join(ADA, BOB), "retriever")),
        (
            {"context": RETRIEVER | RunnableLambda(first)}
            | ChatPromptTemplate.from_template("{context}")
            | MODEL,
            (join(ADA), "retriever"),
        ),
        (
            {"context": RETRIEVER | RunnableLambda(shorten)}
            | ChatPromptTemplate.from_template("{context}")
            | MODEL,
            ("Ada\n\nBob", "retriever"),
        ),
        (
            {"context": RETRIEVER | (lambda documents: "A key is Ada's.")}
            | ChatPromptTemplate.from_template("{context}")
            | MODEL,
            ("A key is Ada's.", "chain"),
        ),
        (
            {"context": RETRIEVER, "background": Found(found=[EVE])} | BOTH | MODEL,
            (join(ADA, BOB, EVE), "retriever"),
        ),
        (
            {"docs": RETRIEVER} | RunnablePassthrough.assign(docs=lambda state: []) | SAY_ADA,
            (None, None),
        ),
        (
            {"context": RunnableLambda(lambda asked: ["Ada has it."])} | SAY_ADA,
            ("Ada has it.", "chain"),
        ),
    ],
    ids=[
        "retrieved",
        "reranked",
        "all dropped",
        "filtered in front of an unknown step",
        "filtered for a prompt",
        "shortened",
        "formatted",
        "two contexts",
        "graded away",
        "handed on as texts",
    ],
)
def test_what_the_model_read_is_the_context(
    chain: Runnable[Any, Any], context: tuple[str | None, str | None]
) -> None:
    """The passages count that the last step, or the prompt of the model, was given."""
    found, source = read(chain)
    assert {*(found or "").split("\n\n")} == {*(context[0] or "").split("\n\n")}
    assert source == context[1]


def test_the_messages_of_the_answering_model_decide() -> None:
    """A model that grades each document has read all of them, but the answering model only the best."""
    grade = ChatPromptTemplate.from_template("{context} {question}") | ScriptedChatModel("yes")

    def answer(asked: str) -> str:
        documents = RETRIEVER.invoke(asked)
        grade.batch([{"context": document, "question": asked} for document in documents])
        return str(MODEL.invoke(f"{documents[0].page_content} {asked}").text)

    assert read(RunnableLambda(answer)) == (join(ADA), "retriever")


@tool
def find_best(query: str) -> str:
    """Search, and return the best passage as text."""
    return RETRIEVER.invoke(query)[0].page_content


@tool
def go_on(query: str) -> Command[Any]:
    """Search, and continue with another node."""
    RETRIEVER.invoke(query)
    return Command(goto="other")


@tool
def transfer_to_other() -> str:
    """Hand on."""
    return "Transferred"


@pytest.mark.parametrize(
    ("step", "context"),
    [
        (find_best, (join(ADA), "tool")),
        (go_on, (join(ADA, BOB), "retriever")),
        (RunnableLambda(lambda asked: transfer_to_other.invoke({})), (None, None)),
    ],
    ids=["a passage", "a command", "a hand-off"],
)
def test_what_a_tool_returns_replaces_what_it_has_read(
    step: Runnable[Any, Any], context: tuple[str | None, str | None]
) -> None:
    """The model reads the text of the tool. A tool without a text leaves what was retrieved."""
    assert read(step | RunnableLambda(lambda found: "Ada")) == context


def test_a_tool_s_error_is_no_passage() -> None:
    """A message about an error states no facts."""

    @tool
    def fail(query: str) -> ToolMessage:
        """Fail."""
        return ToolMessage("The index is down", tool_call_id="1", status="error")

    assert read(fail | RunnableLambda(lambda found: "Ada")) == (None, None)


def test_a_cleared_record_is_empty() -> None:
    """What an earlier try retrieved is not the context of the next one."""
    recorder = RunRecorder()
    RETRIEVER.invoke("Who?", {"callbacks": [recorder]})
    assert recorder.documents == [ADA, BOB]
    recorder.clear()
    assert recorder.documents == []
