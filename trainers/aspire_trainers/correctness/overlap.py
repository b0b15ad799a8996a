"""Correctness by the words that an answer and its best reference have in common."""

from __future__ import annotations

import string
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence

from rouge_score.rouge_scorer import RougeScorer

from aspire_guard.errors import InputError
from aspire_trainers.correctness.refusal import is_refusal
from aspire_trainers.correctness.tokenizer import UnicodeTokenizer, fold
from aspire_trainers.record import QARecord

_TOKENIZER = UnicodeTokenizer()
_ROUGE = RougeScorer(["rougeL"], tokenizer=_TOKENIZER)
_ARTICLES = frozenset({"a", "an", "the"})


class _Overlap(ABC):
    """Correctness by a score: an answer is right if its score reaches `threshold`.

    Args:
        threshold: γ, the least score of a right answer, in (0, 1]; 0.7 in the paper's main table.
    """

    def __init__(self, threshold: float = 0.7) -> None:
        if not 0 < threshold <= 1:
            raise InputError(
                f"threshold: expected 0 < γ ≤ 1, found {threshold}; the paper takes 0.7."
            )
        self.threshold = threshold

    def score(self, answer: str, references: Sequence[str]) -> float:
        """Return the score with the best reference, in [0, 1]. Without references it is 1 if the answer declines."""
        if not references:
            return float(is_refusal(answer))
        return max(self._score(answer, reference) for reference in references)

    def grade(self, answers: Sequence[tuple[QARecord, str]]) -> list[bool]:
        """Tell for each answer whether its score reaches the threshold γ."""
        # An F1 that equals γ may come out a rounding error below it.
        least = self.threshold - 1e-9
        return [self.score(answer, record.references) >= least for record, answer in answers]

    def _score(self, answer: str, reference: str) -> float:
        # Equal texts without a word, such as "+" and "+", have nothing to compare. With words they score 1 anyway.
        if fold(answer).strip() == fold(reference).strip():
            return 1.0
        return self._score_words(answer, reference)

    @abstractmethod
    def _score_words(self, answer: str, reference: str) -> float: ...


class RougeL(_Overlap):
    """Rouge-L F1, the paper's measure: the longest common subsequence of words."""

    def _score_words(self, answer: str, reference: str) -> float:
        return float(_ROUGE.score(reference, answer)["rougeL"].fmeasure)


class TokenF1(_Overlap):
    """SQuAD's F1: the words in common, in any order, after SQuAD's normalisation."""

    def _score_words(self, answer: str, reference: str) -> float:
        answer_words, reference_words = _words_to_compare(answer, reference)
        common = (Counter(answer_words) & Counter(reference_words)).total()
        if not common:
            return 0.0
        return 2 * common / (len(answer_words) + len(reference_words))


class ExactMatch(_Overlap):
    """SQuAD's exact match: the same words in the same order, after SQuAD's normalisation."""

    def __init__(self) -> None:
        super().__init__(1.0)

    def _score_words(self, answer: str, reference: str) -> float:
        answer_words, reference_words = _words_to_compare(answer, reference)
        return float(bool(answer_words) and answer_words == reference_words)


class Containment(_Overlap):
    """Containment: the words of a reference in the answer, one after another, after SQuAD's normalisation."""

    def __init__(self) -> None:
        super().__init__(1.0)

    def _score_words(self, answer: str, reference: str) -> float:
        answer_words, reference_words = _words_to_compare(answer, reference)
        length = len(reference_words)
        starts = range(len(answer_words) - length + 1) if length else range(0)
        return float(any(answer_words[i : i + length] == reference_words for i in starts))


def squad_tokens(text: str) -> list[str]:
    """Return the words of a text as SQuAD compares them: without case, punctuation and English articles.

    As in SQuAD's own script punctuation joins the characters around it ("U.S." is "us"), and signs count ("€5").
    Scripts other than Latin are split as `UnicodeTokenizer` does it, so that Chinese, Japanese or Thai are compared
    by the character.
    """
    return [token for token in _split_words(text) if token not in _ARTICLES]


def _words_to_compare(answer: str, reference: str) -> tuple[list[str], list[str]]:
    """Return the words of both texts as SQuAD compares them.

    Articles count if a text has no other words: "A" may be the choice A.
    """
    answer_words, reference_words = squad_tokens(answer), squad_tokens(reference)
    if answer_words and reference_words:
        return answer_words, reference_words
    return _split_words(answer), _split_words(reference)


def _split_words(text: str) -> list[str]:
    # SQuAD does not take signs beyond ASCII, as in "€5" and "≥ 5", for punctuation. The tokenizer would drop them.
    parts = "".join(_space_out_sign(c) for c in fold(text) if not _is_punctuation(c)).split()
    words: list[str] = []
    for part in parts:
        words += [part] if _is_sign(part[0]) else _TOKENIZER.tokenize(part)
    return words


def _space_out_sign(character: str) -> str:
    return f" {character} " if _is_sign(character) else character


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character)[0] == "P"


def _is_sign(character: str) -> bool:
    return unicodedata.category(character)[0] == "S"
