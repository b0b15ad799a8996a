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
    }
)

# Sentences that decline.
_SOURCE = "(?:the |this |provided |given )*(?:passage|text|context|document|article)s?"
_SENTENCES = re.compile(
    rf"(?!.*\b(?:but|however|though|although|perhaps|maybe|probably)\b)"  # an answer may follow
    rf"(?:{_SOURCE} (?:does not|doesnt|do not|dont) (?:say|mention|state|specify|provide|contain|give|answer)\b.*"
    rf"|(?:it is |this is |that is )?not (?:stated|mentioned|given|specified|known|provided) (?:in|by) {_SOURCE}"
    rf"|it is not (?:stated|mentioned|given|specified|known|provided)"
    rf"|(?:there is |i have )?not enough information\b.*|i (?:do not|dont) have enough information\b.*"
    rf"|(?:the|this|that) question (?:is unanswerable|is not answerable|cannot be answered)"
    rf"|i (?:cant|cannot|can not) answer(?: (?:this|that|the question|this question|that question))?|there is no answer"
    rf"|(?:it |this |that )?cannot be determined(?: from {_SOURCE})?)"
)


def is_refusal(answer: str) -> bool:
    """Tell whether the whole answer is a refusal: empty, or a phrase such as "I don't know."."""
    # "don't" is one word here, with any apostrophe or without an apostrophe.
    words = UnicodeTokenizer().tokenize(_APOSTROPHES.sub("", answer))
    phrase = " ".join(words)
    return not answer.strip() or phrase in _REFUSALS or _SENTENCES.fullmatch(phrase) is not None
