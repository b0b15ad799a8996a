"""Prompts that hold a context and a question in one text, under the labels that RAG prompts commonly have."""

from __future__ import annotations

import re
from typing import NamedTuple

_IN_LINES = re.IGNORECASE | re.MULTILINE
_CONTEXT_LABEL = re.compile(r"^[ \t]*(?:context|passages?|documents?)[ \t]*:", _IN_LINES)
# "Answer from the following context:", which counts only without a label of its own.
_CONTEXT_SENTENCE = re.compile(
    r"^\w[^\n:]*\s(?:context|passages?|documents?)[ \t]*:[ \t]*$", _IN_LINES
)
_QUESTION_LABEL = re.compile(r"^[ \t]*(?:user )?question[ \t]*:", _IN_LINES)
_ANSWER_LABEL = re.compile(r"^[ \t]*(?:helpful )?answer[ \t]*:\s*\Z", _IN_LINES)


class LabelledPrompt(NamedTuple):
    """The question and the context of a prompt."""

    question: str
    context: str


def split_prompt(text: str) -> LabelledPrompt | None:
    """Split a prompt at its labels "Context:" and "Question:", or return None if it does not have both.

    A passage may hold such a label too. If the context comes first, the last label of the question counts. If the
    question comes first, the first label of the context counts.
    """
    contexts = list(_CONTEXT_LABEL.finditer(text)) or list(_CONTEXT_SENTENCE.finditer(text))
    questions = list(_QUESTION_LABEL.finditer(text))
    if not contexts or not questions:
        return None
    end = _ANSWER_LABEL.search(text)
    text = text[: end.start()] if end else text
    if contexts[0].start() < questions[0].start():
        context = text[contexts[0].end() : questions[-1].start()]
        question = text[questions[-1].end() :]
    else:
        context = text[contexts[0].end() :]
        question = text[questions[0].end() : contexts[0].start()]
    if not question.strip():
        return None
    return LabelledPrompt(question.strip(), context.strip())
