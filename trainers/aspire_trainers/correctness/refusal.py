"""Declining: the right answer to a question without a reference."""

from __future__ import annotations

import re

from aspire_trainers.correctness.tokenizer import UnicodeTokenizer

_APOSTROPHES = re.compile("['’ʼ]")

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


def declines(answer: str) -> bool:
    """Return whether the whole answer is a refusal: empty, or a phrase such as "I don't know."."""
    # "don't" is one word here, whichever apostrophe it has and whether it has one.
    words = UnicodeTokenizer().tokenize(_APOSTROPHES.sub("", answer))
    return not answer.strip() or " ".join(words) in _REFUSALS
