"""Correctness of an answer: max over references of Rouge-L F1(ŷ, y_ref) ≥ γ.

rouge-score's own tokenizer keeps a–z and 0–9 and drops the rest, so an answer in Korean or Chinese
would always be wrong. `UnicodeTokenizer` splits any script and agrees with it on plain English.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from rouge_score.rouge_scorer import RougeScorer

from aspire_guard.errors import InputError

# Scripts written without spaces between words.
_UNSPACED_CHARACTER = re.compile(
    "["
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Burmese
    "\u1780-\u17ff\u19e0-\u19ff"  # Khmer
    "\u3031-\u30ff\u31f0-\u31ff\U0001aff0-\U0001b16f"  # kana
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029"  # Han radicals, 々 〆 〇, Hangzhou numerals
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"  # Han
    "]"
)
_APOSTROPHES = re.compile("['’ʼ]")
_ZERO_WIDTH_SPACE = "\u200b"

# Kinds of characters, to the tokenizer. Ignored are format characters, such as joiners and soft hyphens.
_WORD, _UNSPACED, _MARK, _SEPARATOR, _IGNORED = "word", "unspaced", "mark", "separator", "ignored"

# Whole answers that decline, tokenized and without apostrophes.
_REFUSALS = frozenset(
    {
        "unanswerable",
        "not answerable",
        "not stated",
        "not mentioned",
        "not given",
        "not specified",
        "not known",
        "not in the passage",
        "no answer",
        "none",
        "na",
        "n a",
        "unknown",
        "i dont know",
        "i do not know",
        "dont know",
        "i cant answer",
        "i cannot answer",
        "i cant answer this question",
        "i cannot answer this question",
        "i can not answer this question",
        "the passage does not say",
        "the passage doesnt say",
        "it is not stated",
        "it is not known",
    }
)


class UnicodeTokenizer:
    """Splits text of any script into tokens, for `RougeScorer(tokenizer=…)`."""

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of a text, folded to one case and to NFKC.

        A token is a run of letters, digits and their combining marks; in a script without spaces it is
        one character with its marks. Decimal digits of every script become 0–9. All else separates.
        """
        spaced: list[str] = []
        previous = _SEPARATOR
        for character in _fold(text):
            kind = _kind(character)
            if kind == _IGNORED or (kind == _MARK and previous == _SEPARATOR):
                continue
            if kind == _MARK:
                spaced.append(character)
                continue
            if _UNSPACED in (kind, previous) or kind == _SEPARATOR:
                spaced.append(" ")
            if kind != _SEPARATOR:
                spaced.append(str(unicodedata.decimal(character, character)))
            previous = kind
        return "".join(spaced).split()


@dataclass(frozen=True)
class RougeL:
    """Correctness by Rouge-L.

    Attributes:
        threshold: γ, the least Rouge-L F1 of a right answer, in (0, 1]; 0.7 in the paper's main table.
    """

    threshold: float = 0.7

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise InputError(f"Rouge-L threshold: expected 0 < γ ≤ 1, found {self.threshold}; the paper takes 0.7.")

    def score(self, answer: str, references: Sequence[str]) -> float:
        """Return max over references of Rouge-L F1, in [0, 1]; without references, 1 where the answer declines."""
        if not references:
            return float(declines(answer))
        return max(_f1(answer, reference) for reference in references)

    def is_correct(self, answer: str, references: Sequence[str]) -> bool:
        """Return whether the score reaches the threshold γ."""
        return self.score(answer, references) >= self.threshold


def declines(answer: str) -> bool:
    """Return whether the whole answer is a refusal: empty, or a phrase such as "I don't know."."""
    # "don't" is one word here, whichever apostrophe it has and whether it has one.
    words = UnicodeTokenizer().tokenize(_APOSTROPHES.sub("", answer))
    return not answer.strip() or " ".join(words) in _REFUSALS


def _f1(answer: str, reference: str) -> float:
    # Equal texts without a token, such as "+" and "+", have no Rouge-L; with tokens it is 1 in any case.
    if _fold(answer).strip() == _fold(reference).strip():
        return 1.0
    return float(_SCORER.score(reference, answer)["rougeL"].fmeasure)


def _fold(text: str) -> str:
    # Folding the case can undo NFKC, hence twice.
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _kind(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cf" and character != _ZERO_WIDTH_SPACE:
        return _IGNORED
    if category[0] == "M":
        return _MARK
    if category[0] not in "LN":
        return _SEPARATOR
    return _UNSPACED if _UNSPACED_CHARACTER.match(character) and category != "Nd" else _WORD


_SCORER = RougeScorer(["rougeL"], tokenizer=UnicodeTokenizer())
