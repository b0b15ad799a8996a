"""Sources of answers: a QA record with its passage, the other questions about it, and passages of the same topic."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer

from aspire_guard.sentences import split_sentences
from aspire_trainers.data.styled_answers.passage import (
    Entity,
    contains,
    find_content_words,
    find_entities,
)
from aspire_trainers.record import QARecord

_NEIGHBOURS = 4
_ROWS_AT_ONCE = 512
# Cosine of two passages' words: less is another topic, more is the same passage with small changes.
_LEAST_LIKENESS, _MOST_LIKENESS = 0.12, 0.9
# Marks of an encyclopedia's editors, such as [12], [a], [N 3] and [citation needed].
_EDITORIAL = re.compile(
    r"\s?\[(?:\d+|[a-z]|[A-Za-z]{1,4} \d+|update|[a-z ]+ needed|not in citation given|[a-z]+\?)\]"
)
# Words that point back to an earlier sentence, or begin an argument with it.
_LEANS_BACK = re.compile(
    r"(?:He|She|It|They|We|I|His|Her|Hers|Its|Their|This|That|These|Those|Such|Here|There|However|Moreover"
    r"|Furthermore|Also|Thus|Therefore|Hence|But|And|Or|So|Yet|Then|Instead|Meanwhile"
    r"|Nevertheless|Nonetheless|Additionally"
    r"|Similarly|Likewise|Consequently|Conversely|Others?|Both|Another|For (?:example|instance|this)"
    r"|In (?:addition|this|that|fact|contrast|response|particular|turn)|As (?:a result|such)"
    r"|At (?:the same|this|that)|On the other|By (?:this|that|then)|The (?:former|latter|other"
    r"|two|same)|After (?:this|that)|[a-z])\b"
)


class Passage:
    """A passage, with its sentences and its names, dates and numbers."""

    def __init__(self, text: str) -> None:
        self.text = _EDITORIAL.sub("", text)
        self.original = text

    @cached_property
    def sentences(self) -> list[str]:
        """The sentences of the passage."""
        sentences = []
        for line in self.text.splitlines():  # A title is not the beginning of a sentence.
            sentences += [line[start:end].strip() for start, end in split_sentences(line)]
        return sentences

    @cached_property
    def entities(self) -> list[Entity]:
        """The names, dates and numbers of the passage."""
        return find_entities(self.text)

    @cached_property
    def content_words(self) -> set[str]:
        """The content words of the passage."""
        return find_content_words(self.text)

    @cached_property
    def quotable(self) -> list[str]:
        """The sentences that are understood without those before them."""
        return [sentence for sentence in self.sentences if is_self_contained(sentence)]


@dataclass(frozen=True)
class Source:
    """A record with everything that its answers are made from.

    Attributes:
        record: the record.
        passage: its context.
        siblings: other records about the passage.
        neighbours: passages of the same topic, the most similar first.
    """

    record: QARecord
    passage: Passage
    siblings: tuple[QARecord, ...]
    neighbours: tuple[Passage, ...]

    def is_reference(self, text: str) -> bool:
        """Tell whether a text could mean the same as a reference, because the two share a content word."""
        words = find_content_words(text)
        return any(
            words & find_content_words(reference) or contains(reference, text)
            for reference in self.record.references
        )


def is_self_contained(sentence: str) -> bool:
    """Tell whether a sentence is whole, of usual length, and understood without those before it."""
    n_words = len(sentence.split())
    is_whole = (
        sentence[:1].isupper()
        and sentence.endswith((".", ".”", '."'))
        and not sentence.endswith("...")
    )
    return (
        is_whole
        and 5 <= n_words <= 40
        and is_balanced(sentence)
        and not _LEANS_BACK.match(sentence)
    )


def is_balanced(text: str) -> bool:
    """Tell whether every quotation mark and bracket of a text has its counterpart."""
    if text.count('"') % 2:
        return False
    for left, right in ("()", "[]", "“”"):
        depth = 0
        for character in text:
            depth += (character == left) - (character == right)
            if depth < 0:
                return False
        if depth:
            return False
    return True


def collect_sources(records: Sequence[QARecord]) -> list[Source]:
    """Return the source of each record that has a context, in their order."""
    by_context: dict[str, list[QARecord]] = {}
    for record in records:
        if record.context:
            by_context.setdefault(record.context, []).append(record)
    passages = {context: Passage(context) for context in by_context}
    neighbours = _find_neighbours(list(by_context))
    sources = []
    for record in records:
        if record.context:
            siblings = tuple(other for other in by_context[record.context] if other is not record)
            near = tuple(passages[context] for context in neighbours[record.context])
            sources.append(Source(record, passages[record.context], siblings, near))
    return sources


def _find_neighbours(contexts: list[str]) -> dict[str, list[str]]:
    """Map each context to the contexts that share most words with it."""
    # Without weights of rarity, the likeness of two contexts depends on these two alone.
    if not contexts:
        return {}
    vectors = HashingVectorizer(stop_words="english", n_features=2**18, binary=True).transform(
        contexts
    )
    neighbours = {}
    for start in range(0, len(contexts), _ROWS_AT_ONCE):
        likeness = (vectors[start : start + _ROWS_AT_ONCE] @ vectors.T).toarray()
        for row, scores in enumerate(likeness):
            scores[start + row] = -1
            best = np.argsort(-scores, kind="stable")[:_NEIGHBOURS]
            near = [
                contexts[index]
                for index in best
                if _LEAST_LIKENESS < scores[index] < _MOST_LIKENESS
            ]
            neighbours[contexts[start + row]] = near
    return neighbours
