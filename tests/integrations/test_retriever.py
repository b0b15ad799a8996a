"""Retrieval by BM25."""

from __future__ import annotations

import asyncio

import pytest
from langchain_core.documents import Document

from aspire_guard.errors import InputError
from aspire_integrations import BM25Retriever, format_documents
from aspire_integrations.demo import handbook_documents
from aspire_trainers.data.handbook import load_questions

KEY = Document("Ada keeps the key of the boathouse.")
TIDE = Document("High water is announced by two bells.", metadata={"title": "Tides"})
BOATS = Document("The boathouse holds four boats; Ada counts the boats weekly.")


def test_the_best_document_is_given() -> None:
    """One, unless more are asked for."""
    retriever = BM25Retriever(documents=[KEY, TIDE, BOATS])
    assert retriever.invoke("Who keeps the key?") == [KEY]
    assert asyncio.run(retriever.ainvoke("How many bells announce high water?")) == [TIDE]


def test_documents_come_best_first() -> None:
    """And no more of them than share a word with the query."""
    retriever = BM25Retriever(documents=[KEY, TIDE, BOATS], k=3)
    assert retriever.invoke("How many boats are in Ada's boathouse?") == [BOATS, KEY]


def test_of_equals_the_first_is_given() -> None:
    """Ties don't depend on chance."""
    twins = [Document(KEY.page_content, metadata={"place": place}) for place in range(5)]
    assert BM25Retriever(documents=[TIDE, *twins], k=2).invoke("key") == twins[:2]


def test_titles_are_searched() -> None:
    """As is any metadata that is named, and none where none is."""
    assert BM25Retriever(documents=[KEY, TIDE]).invoke("tides") == [TIDE]
    assert BM25Retriever(documents=[KEY, TIDE], searched_metadata=()).invoke("tides") == []


@pytest.mark.parametrize("query", ["", "the", "zeppelin"])
def test_a_query_without_a_known_word_finds_nothing(query: str) -> None:
    """Better no passage than any passage."""
    assert BM25Retriever(documents=[KEY, TIDE]).invoke(query) == []


@pytest.mark.parametrize("documents", [[], [Document("")], [Document("of the")]])
def test_documents_without_words_are_refused(documents: list[Document]) -> None:
    """They could never be found."""
    with pytest.raises(
        InputError, match=r"expected documents with words to search for, found none in \d documents"
    ):
        BM25Retriever(documents=documents)


def test_the_right_passage_is_found_for_most_questions_of_the_handbook() -> None:
    """For 118 of the 128 questions of the test split, at k = 1 among all 64 passages."""
    retriever = BM25Retriever(documents=handbook_documents())
    questions = load_questions("test")
    found = sum(
        retriever.invoke(question.question)[0].page_content == question.context
        for question in questions
    )
    assert found >= 118


def test_documents_are_formatted_as_one_context() -> None:
    """Their texts, with a blank line between them and no title: the layout that models are trained on."""
    assert format_documents([TIDE, KEY]) == f"{TIDE.page_content}\n\n{KEY.page_content}"
    assert format_documents([]) == ""
