"""Answers that decline and answers that don't, in sixteen languages, written for the probe for refusals.

`answers.json` is next to this file: for each language, questions with refusals and with answers. The answers are hard
to tell from refusals: short ones, negations, apologies, unknown details, and things that can't be done. The lists of
the languages are mostly translations of one another, in the same order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class DecliningAnswer:
    """An answer to a question without a context.

    Attributes:
        language: the code of its language.
        question: the question.
        answer: the answer.
        declines: True if it declines to answer.
        phrase: the question's place, the kind and the answer's place, which translations of a phrase mostly share.
    """

    language: str
    question: str
    answer: str
    declines: bool
    phrase: str


@cache
def load_declining_answers() -> tuple[DecliningAnswer, ...]:
    """Return all answers, language by language."""
    text = files(__name__).joinpath("answers.json").read_text(encoding="utf-8")
    answers: list[DecliningAnswer] = []
    for language, questions in json.loads(text).items():
        for place, lists in enumerate(questions):
            for kind in ("refusals", "answers"):
                phrases = enumerate(lists[kind])
                answers += _make_answers(language, lists["question"], f"{place} {kind}", phrases)
    return tuple(answers)


def _make_answers(
    language: str, question: str, kind: str, phrases: Iterator[tuple[int, str]]
) -> Iterator[DecliningAnswer]:
    declines = kind.endswith("refusals")
    for number, text in phrases:
        yield DecliningAnswer(language, question, text, declines, f"{kind} {number}")
