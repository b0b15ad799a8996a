"""Correctness by what an answer and its best reference have in common."""

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
    """An answer is right from a score of `threshold` on.

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
        """Return the score with the best reference, in [0, 1]; without references, 1 where the answer declines."""
        if not references:
            return float(is_refusal(answer))
        return max(self._score(answer, reference) for reference in references)

    def grade(self, answers: Sequence[tuple[QARecord, str]]) -> list[bool]:
        """Return for each answer whether its score reaches the threshold γ."""
        # An F1 that is γ may come out a rounding error below it.
        least = self.threshold - 1e-9
        return [self.score(answer, record.references) >= least for record, answer in answers]

    def _score(self, answer: str, reference: str) -> float:
        # Equal texts without a word, such as "+" and "+", have nothing to compare; with words they score 1 in any case.
        if fold(answer).strip() == fold(reference).strip():
            return 1.0
        return self._of_words(answer, reference)

    @abstractmethod
    def _of_words(self, answer: str, reference: str) -> float: ...


class RougeL(_Overlap):
    """Rouge-L F1, the paper's: the longest common subsequence of words."""

    def _of_words(self, answer: str, reference: str) -> float:
        return float(_ROUGE.score(reference, answer)["rougeL"].fmeasure)


class TokenF1(_Overlap):
    """SQuAD's F1: the words in common, in any order, after its normalisation."""

    def _of_words(self, answer: str, reference: str) -> float:
        ours, theirs = _compared(answer, reference)
        common = (Counter(ours) & Counter(theirs)).total()
        return 2 * common / (len(ours) + len(theirs)) if common else 0.0


class ExactMatch(_Overlap):
    """SQuAD's exact match: the same words in the same order, after its normalisation."""

    def __init__(self) -> None:
        super().__init__(1.0)

    def _of_words(self, answer: str, reference: str) -> float:
        ours, theirs = _compared(answer, reference)
        return float(bool(ours) and ours == theirs)


def squad_tokens(text: str) -> list[str]:
    """The words of a text as SQuAD compares them: without case, punctuation and English articles.

    As in SQuAD's own script punctuation joins what it stands between ("U.S." is "us"), and signs count ("€5"). Other
    scripts than the Latin one are split as `UnicodeTokenizer` does it, so that Chinese, Japanese or Thai are compared
    by the character.
    """
    return [token for token in _words(text) if token not in _ARTICLES]


def _compared(answer: str, reference: str) -> tuple[list[str], list[str]]:
    """The words of both as SQuAD compares them; articles too where one has nothing else: "A" may be the choice A."""
    ours, theirs = squad_tokens(answer), squad_tokens(reference)
    return (ours, theirs) if ours and theirs else (_words(answer), _words(reference))


def _words(text: str) -> list[str]:
    kept = (
        c for c in fold(text) if c not in string.punctuation and unicodedata.category(c)[0] != "P"
    )
    # Signs beyond ASCII, as in "€5" and "≥ 5", are no punctuation to SQuAD; the tokenizer would drop them.
    parts = "".join(f" {c} " if _is_sign(c) else c for c in kept).split()
    return [
        token
        for part in parts
        for token in ([part] if _is_sign(part[0]) else _TOKENIZER.tokenize(part))
    ]


def _is_sign(character: str) -> bool:
    return unicodedata.category(character)[0] == "S"
