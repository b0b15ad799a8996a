"""BM25Retriever: a keyword search over passages, without a model or an index server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import Field, PrivateAttr

from aspire_guard.errors import InputError


class BM25Retriever(BaseRetriever):
    """A retriever of the documents that share the most telling words with the query, best first.

    English stop words are ignored, in documents and in queries. Spaces and punctuation separate words. A document that
    shares no word with the query is never returned.

    Args:
        documents: the documents to search.
        k: the largest number of documents to return. `invoke(query, k=...)` changes it for a call.
        searched_metadata: keys whose text is searched along with the content, such as a title.

    Raises:
        InputError: the documents contain no word to search for.
    """

    documents: Sequence[Document] = Field(repr=False)
    k: int = Field(default=1, ge=1)
    searched_metadata: tuple[str, ...] = ("title",)

    _index: Any = PrivateAttr()

    def __init__(self, documents: Sequence[Document], **kwargs: Any) -> None:
        import bm25s

        fields: dict[str, Any] = {"documents": documents, **kwargs}
        super().__init__(**fields)
        words = _split_into_words(
            [self._join_searched_text(document) for document in self.documents]
        )
        if not any(words):
            raise InputError(
                f"expected documents with words to search for, found none in {len(words)} documents; "
                "check that their page_content is filled"
            )
        self._index = bm25s.BM25()
        self._index.index(words, show_progress=False)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        count = self.k if k is None else k
        if count < 1:
            raise InputError(f"expected k to be at least 1, found {count}; ask for a document")
        [words] = _split_into_words([query])
        if not words:
            return []
        scores = self._index.get_scores(words)  # (documents,)
        # The sort is stable, so that the earlier one of two documents with equal scores comes first.
        best = (-scores).argsort(kind="stable")[:count].tolist()
        return [self.documents[index] for index in best if scores[index] > 0]

    def _join_searched_text(self, document: Document) -> str:
        texts = []
        for key in self.searched_metadata:
            if key in document.metadata:
                texts.append(str(document.metadata[key]))
        return "\n".join([*texts, document.page_content])


def format_documents(documents: Sequence[Document]) -> str:
    """Join the documents' texts to one context, with a blank line between them."""
    return "\n\n".join(document.page_content for document in documents)


def _split_into_words(texts: list[str]) -> list[list[str]]:
    import bm25s

    words: list[list[str]] = bm25s.tokenize(
        texts, stopwords="en", return_ids=False, show_progress=False
    )
    return words
