"""Retrieval by BM25."""

from __future__ import annotations

import asyncio

import pytest
from langchain_core.documents import Document

from aspire_guard.errors import InputError
from aspire_integrations import BM25Retriever, format_documents
from aspire_integrations.demo import load_documents
from aspire_trainers.data.handbook import load_questions

KEY = Document("Ada keeps the key of the boathouse.")
TIDE = Document("High water is announced by two bells.", metadata={"title": "Tides"})
BOATS = Document("The boathouse holds four boats; Ada counts the boats weekly.")


def test_the_best_document_is_given() -> None:
    """The default is a single document."""
    retriever = BM25Retriever(documents=[KEY, TIDE, BOATS])
    assert retriever.invoke("Who keeps the key?") == [KEY]
    assert asyncio.run(retriever.ainvoke("How many bells announce high water?")) == [TIDE]


def test_documents_come_best_first() -> None:
    """Documents that share no word with the query are left out."""
    retriever = BM25Retriever(documents=[KEY, TIDE, BOATS], k=3)
    assert retriever.invoke("How many boats are in Ada's boathouse?") == [BOATS, KEY]


def test_ties_are_in_the_given_order() -> None:
    """Documents with equal scores are returned in the order in which they were given."""
    twins = [Document(KEY.page_content, metadata={"place": place}) for place in range(5)]
    assert BM25Retriever(documents=[TIDE, *twins], k=2).invoke("key") == twins[:2]


def test_titles_are_searched() -> None:
    """Only the named metadata is searched, which is the title by default."""
    assert BM25Retriever(documents=[KEY, TIDE]).invoke("tides") == [TIDE]
    assert BM25Retriever(documents=[KEY, TIDE], searched_metadata=()).invoke("tides") == []


@pytest.mark.parametrize("query", ["the", "zeppelin"])
def test_a_query_without_a_known_word_finds_nothing(query: str) -> None:
    """No passage is better than an arbitrary passage."""
    assert BM25Retriever(documents=[KEY, TIDE]).invoke(query) == []


@pytest.mark.parametrize("documents", [[], [Document("of the")]])
def test_documents_without_words_are_refused(documents: list[Document]) -> None:
    """No query could find them."""
    with pytest.raises(
        InputError, match=r"expected documents with words to search for, found none in \d documents"
    ):
        BM25Retriever(documents=documents)


def test_the_right_passage_is_found_for_most_questions_of_the_handbook() -> None:
    """At k = 1 among all 64 passages, it is found for 118 of the 128 questions of the test split."""
    retriever = BM25Retriever(documents=load_documents())
    found = 0
    for question in load_questions("test"):
        (document,) = retriever.invoke(question.question)
        found += document.page_content == question.context
    assert found >= 118


def test_documents_are_formatted_as_one_context() -> None:
    """The texts have a blank line between them and no title, as in training."""
    assert format_documents([TIDE, KEY]) == f"{TIDE.page_content}\n\n{KEY.page_content}"
    assert format_documents([]) == ""


def test_a_call_may_ask_for_another_number_of_documents() -> None:
    """`k` of a call goes before the retriever's own, and must ask for a document."""
    retriever = BM25Retriever(documents=[KEY, TIDE, BOATS], k=3)
    assert retriever.invoke("How many boats are in Ada's boathouse?", k=1) == [BOATS]
    with pytest.raises(InputError, match="expected k to be at least 1, found 0"):
        retriever.invoke("Who keeps the key?", k=0)
