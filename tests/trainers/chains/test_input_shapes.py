"""The shapes of a chain's input: those that its schema allows are tried, the likeliest first."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

import pytest
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import BaseMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough

from aspire_guard.records.reading import read_numbered_records
from aspire_integrations import BM25Retriever, format_documents
from aspire_trainers.chains.chain_sampling import ChainSample, SampledChain, sample_chain
from aspire_trainers.chains.input_shapes import list_shapes
from aspire_trainers.record import QARecord
from aspire_trainers.run.progress import Progress

RECORD = QARecord(id="q", question="When does the ferry leave?", references=("21:40",))
PAGE = "The ferry leaves at 21:40."


class State(TypedDict):
    """The state of a graph."""

    messages: list[BaseMessage]


def _answer_with_model(prompt: str) -> Runnable[Any, str]:
    model = FakeListChatModel(responses=["At 21:40."])
    return ChatPromptTemplate.from_template(prompt) | model | StrOutputParser()


def _make_readme_chain() -> Runnable[Any, str]:
    retriever = BM25Retriever(documents=[Document(PAGE)])
    inputs = {"context": retriever | format_documents, "question": RunnablePassthrough()}
    return inputs | _answer_with_model("{context} {question}")


def _answer_state(state: State) -> str:
    return f"At 21:40, {state['messages'][-1].content}"


def _answer_text(text: str) -> str:
    return f"At 21:40, {text.lower()}"


def _answer_anything(text: Any) -> str:
    return f"At 21:40, {text.lower()}"


def _sample(chain: Runnable[Any, Any], path: Path, record: QARecord = RECORD) -> ChainSample:
    sampled = SampledChain(chain, "app:chain", samples=2, max_concurrency=1, retries=8)
    return sample_chain(sampled, [record], path, Progress("sampling", "answers"))


@pytest.mark.parametrize(
    "chain",
    [
        _make_readme_chain(),
        _answer_with_model("{question}"),
        _answer_with_model("{input}"),
        _answer_with_model("{user_text}"),
        FakeListChatModel(responses=["At 21:40."]),
        RunnableLambda(_answer_text),
        RunnableLambda(_answer_anything),
        RunnableLambda(_answer_state),
    ],
    ids=["readme", "question", "input", "own key", "model", "string", "untyped", "messages"],
)
def test_a_chain_is_asked_in_the_shape_that_it_takes(
    chain: Runnable[Any, Any], tmp_path: Path
) -> None:
    """Every answer is there, under the record's own question."""
    ended = _sample(chain, file := tmp_path / "answers.jsonl")
    assert (ended.failures, ended.missing) == ({}, 0)
    lines = [line for _, line in read_numbered_records(file)]
    assert {line["question"] for line in lines} == {RECORD.question}
    assert all(line["answer"].startswith("At 21:40") for line in lines)


def test_a_chain_that_finds_its_own_context_keeps_it(tmp_path: Path) -> None:
    """The record's context has no place in a string, and another call continues the file."""
    record = QARecord(id="q", question=RECORD.question, references=("21:40",), context="Another.")
    file = tmp_path / "answers.jsonl"
    assert _sample(_make_readme_chain(), file, record).missing == 0
    lines = [line for _, line in read_numbered_records(file)]
    assert [(line["context"], line["own_context"]) for line in lines] == [(PAGE, True)] * 2
    assert _sample(_make_readme_chain(), file, record).missing == 0


def test_a_chain_that_takes_no_shape_fails_at_once_with_all_that_were_tried(
    tmp_path: Path,
) -> None:
    """No try is repeated, and the error names each shape with the chain's words."""
    seen: list[Any] = []

    def refuse(value: Any) -> str:
        seen.append(value)
        raise AttributeError(f"no attribute in {type(value).__name__} {len(seen)}")

    ended = _sample(RunnableLambda(refuse), tmp_path / "answers.jsonl")
    error = str(ended.failures["q"])
    assert error.startswith("expected a chain that takes a question in a shape")
    for shape in list_shapes(RunnableLambda(refuse)):
        assert shape.name in error
    assert len(seen) == len(list_shapes(RunnableLambda(refuse)))
