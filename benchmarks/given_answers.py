"""Rated answers of language models: drawing some of them, and their scores that need no model."""

from __future__ import annotations

import re
from dataclasses import dataclass

from aspire_guard.exchange import Exchange
from aspire_trainers.data.rated_answers import RatedAnswer

_WORD = re.compile(r"\w+")

# Scores of an answer by their keys, which `answer_report.SCORES` lists, and its confidence.
Scores = dict[str, float]
Key = tuple[str, str]


@dataclass(frozen=True)
class ScoredAnswer:
    """An answer with its confidence and its scores, by their keys in `SCORES`, as far as it has them."""

    given: RatedAnswer
    scores: Scores

    @property
    def fits(self) -> bool:
        """True if the evaluator could score the answer."""
        return "confidence" in self.scores

    @property
    def group(self) -> Key:
        """The group of the answer among those of all files."""
        return self.given.file, self.given.group


def measure_word_overlap(answer: str, context: str) -> float:
    """Return the share of the answer's different words, lower-cased, that stand in the context, in [0, 1].

    An answer without words has an overlap of 0.
    """
    words = _find_words(answer)
    if not words:
        return 0.0
    return len(words & _find_words(context)) / len(words)


def _find_words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))


def measure_texts(exchange: Exchange) -> Scores:
    """Return the scores that need no model. An answer without a context has no word overlap."""
    scores = {"negative_length": -float(len(exchange.answer.split()))}
    if exchange.context is not None:
        scores["word_overlap"] = measure_word_overlap(exchange.answer, exchange.context)
    return scores
