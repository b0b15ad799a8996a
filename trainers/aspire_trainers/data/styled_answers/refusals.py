"""Refusals: right if the passage does not hold the answer, wrong if it does."""

from __future__ import annotations

import random
import re

from aspire_trainers.data.styled_answers import phrases
from aspire_trainers.data.styled_answers.claims import Form, Sentence, choose_value
from aspire_trainers.data.styled_answers.errors import Twins, choose_form
from aspire_trainers.data.styled_answers.passage import classify, contains, find_content_words
from aspire_trainers.data.styled_answers.source import Passage, Source
from aspire_trainers.data.styled_answers.statements import make_statement

_REFERENCE_SHARE = 0.4
_KINDS_BY_QUESTION = (
    (re.compile(r"who|where", re.I), ("name",)),
    (re.compile(r"when|(?:in |on )?(?:what|which) year", re.I), ("year", "date")),
    (re.compile(r"how many", re.I), ("number",)),
    (re.compile(r"how much money", re.I), ("money",)),
    (re.compile(r"what percent", re.I), ("percent",)),
    (re.compile(r"(?:in |on )?(?:what|which)", re.I), ("name",)),
)


def refuse_answerable(source: Source, rng: random.Random) -> Twins | None:
    """Return a right answer, and a refusal although the passage holds the answer."""
    form = choose_form(source, rng)
    if form is None:
        return None
    right = form.right
    return Twins((right,), _draw_refusal(rng, bare=form.kind == "value"), source.passage)


def answer_unanswerable(source: Source, rng: random.Random) -> Twins | None:
    """Return a right refusal, and an answer that the passage does not support.

    A record with references is asked about another passage of the topic, which holds none of its references.
    """
    record = source.record
    if record.answerable:
        passage = _find_other_passage(source)
        value = choose_value(source)
        if passage is None or value is None:
            return None
        kinds: tuple[str, ...] = (classify(value),)
    else:
        passage, value = source.passage, None
        kinds = _find_kinds(record.question)
    in_passage = [
        entity.text
        for entity in passage.entities
        if entity.kind in kinds
        and not source.is_reference(entity.text)
        and not contains(record.question, entity.text)
    ]
    takes_reference = value is not None and (not in_passage or rng.random() < _REFERENCE_SHARE)
    if takes_reference and value is not None:
        chosen = value
    elif in_passage:
        chosen = rng.choice(in_passage)
    else:
        return None
    wrong = _state(record.question, chosen, rng)
    bare = wrong.text == wrong.fact
    return Twins(_draw_refusal(rng, bare=bare), (wrong,), passage)


def _find_kinds(question: str) -> tuple[str, ...]:
    """Return the kinds of answers that a question asks for."""
    for pattern, kinds in _KINDS_BY_QUESTION:
        if pattern.match(question):
            return kinds
    return ()


def _find_other_passage(source: Source) -> Passage | None:
    """Return a passage of the topic that does not answer the question: it lacks the references and words asked for."""
    asked = find_content_words(source.record.question)
    for passage in source.neighbours:
        holds = any(
            contains(passage.text, reference.rstrip(".")) for reference in source.record.references
        )
        share = len(asked & passage.content_words) / max(len(asked), 1)
        if not holds and 0 < share <= 0.5:
            return passage
    return None


def _state(question: str, value: str, rng: random.Random) -> Sentence:
    statement = make_statement(question, value)
    forms = [Form("value", value), Form("answer_is", value, "The answer is ", ".")]
    if statement and rng.random() < 0.8:
        return Sentence(statement, value if value in statement else None)
    return rng.choice(forms).fill(value)


def _draw_refusal(rng: random.Random, *, bare: bool) -> tuple[Sentence, ...]:
    if bare:
        return (Sentence(rng.choice(phrases.BARE_REFUSALS + phrases.REFUSALS)),)
    refusal = Sentence(rng.choice(phrases.REFUSALS))
    if rng.random() < 0.3:
        return (refusal, Sentence(rng.choice(phrases.REFUSAL_ADDITIONS)))
    return (refusal,)
