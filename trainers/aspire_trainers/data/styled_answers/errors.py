"""Kinds of errors: each makes a right answer and its wrong twin, which differ in one fact."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aspire_trainers.data.styled_answers.alterations import (
    flip_relation,
    negate_sentence,
    swap_entity,
)
from aspire_trainers.data.styled_answers.claims import (
    Form,
    Sentence,
    add_sentences,
    find_forms,
    list_further_sentences,
)
from aspire_trainers.data.styled_answers.passage import (
    classify,
    contains,
    find_content_words,
    find_entities,
)
from aspire_trainers.data.styled_answers.source import Passage, Source
from aspire_trainers.data.styled_answers.values import (
    choose_wrong_value,
    invent_values,
    list_answers_like,
    list_entities_like,
)

_INVENTED_SHARE = 0.2
_FORM_WEIGHTS = {"value": 2, "answer_is": 1, "statement": 6, "passage": 3}
_NUMBERS_OF_FURTHER = (0, 0, 0, 1, 1, 2, 3)
# The most words that a foreign sentence shares with the passage.
_MOST_SHARED = 0.5
# Questions with several right answers, of which the references may name only a few.
_OPEN_QUESTION = re.compile(
    r"\b(?:one of|other|another|example|besides|an? \w+ (?:of|that)|in addition|along with|also"
    r"|name (?:a|an|one|two))\b",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Twins:
    """A right answer and a wrong one that differ in one fact.

    Attributes:
        right: the sentences of the right answer.
        wrong: the sentences of the wrong answer.
        passage: the passage that both are about.
    """

    right: tuple[Sentence, ...]
    wrong: tuple[Sentence, ...]
    passage: Passage


Maker = Callable[[Source, random.Random], Twins | None]


def choose_form(source: Source, rng: random.Random) -> Form | None:
    """Return one of the wordings of the reference, or None if the reference is no good answer."""
    forms = find_forms(source)
    weights = [_FORM_WEIGHTS[form.kind] for form in forms]
    return rng.choices(forms, weights)[0] if forms else None


def _change_entity(source: Source, rng: random.Random) -> Twins | None:
    return _change_value(source, rng, ("name",))


def _change_number(source: Source, rng: random.Random) -> Twins | None:
    return _change_value(source, rng, ("number", "money", "percent"))


def _change_date(source: Source, rng: random.Random) -> Twins | None:
    return _change_value(source, rng, ("date", "year"))


def _change_value(source: Source, rng: random.Random, kinds: Sequence[str]) -> Twins | None:
    """Put another value of the passage in the place of a reference of one of these kinds."""
    form = choose_form(source, rng)
    if form is None or classify(form.value) not in kinds:
        return None
    invented = invent_values(form.value, rng) if "name" not in kinds else []
    in_passage = list_entities_like(source, form)
    if invented and rng.random() < _INVENTED_SHARE:
        in_passage = []
    twins = _replace_value(source, form, in_passage, rng)
    return twins or _replace_value(source, form, invented, rng)


def _take_other_answer(source: Source, rng: random.Random) -> Twins | None:
    """Put the reference of another question about the passage in the place of this one."""
    form = choose_form(source, rng)
    if form is None:
        return None
    return _replace_value(source, form, list_answers_like(source, form), rng)


def _replace_value(
    source: Source, form: Form, candidates: Sequence[str], rng: random.Random
) -> Twins | None:
    if _OPEN_QUESTION.search(source.record.question):
        return None
    value = choose_wrong_value(source, form, candidates, rng)
    if value is None:
        return None
    n = rng.choice(_NUMBERS_OF_FURTHER) if form.kind in {"statement", "passage"} else 0
    further = add_sentences(form.right, source, n, rng, avoid=value)[1:]
    wrong = form.fill(value)
    return Twins((form.right, *further), (wrong, *further), source.passage)


def _negate(source: Source, rng: random.Random) -> Twins | None:
    return _alter_main(source, rng, negate_sentence)


def _flip_relation(source: Source, rng: random.Random) -> Twins | None:
    return _alter_main(source, rng, flip_relation)


def _alter_main(
    source: Source, rng: random.Random, alter: Callable[[str, random.Random], str | None]
) -> Twins | None:
    """Alter the sentence that answers the question."""
    altered = []
    for form in find_forms(source):
        text = alter(form.right.text, rng) if form.kind in {"statement", "passage"} else None
        if text is not None:
            altered.append((form.right, text))
    if not altered:
        return None
    right, text = rng.choice(altered)
    further = add_sentences(right, source, rng.choice((0, 0, 1, 2)), rng)[1:]
    fact = right.fact if right.fact and right.fact in text else None
    wrong = Sentence(text, fact)
    return Twins((right, *further), (wrong, *further), source.passage)


def _add_unsupported(source: Source, rng: random.Random) -> Twins | None:
    """Let a sentence from another passage of the topic follow, in place of one from this passage."""
    form = choose_form(source, rng)
    if form is None or form.kind == "value":
        return None
    right = add_sentences(form.right, source, rng.choice((1, 1, 2)), rng)
    foreign = _list_foreign_sentences(source)
    if len(right) < 2 or not foreign:
        return None
    position = rng.randrange(1, len(right))
    wrong = [*right]
    wrong[position] = Sentence(rng.choice(foreign))
    return Twins(tuple(right), tuple(wrong), source.passage)


def _list_foreign_sentences(source: Source) -> list[str]:
    """Return sentences of other passages that name something which this passage doesn't."""
    foreign = []
    for neighbour in source.neighbours[:2]:
        for sentence in neighbour.quotable:
            words = find_content_words(sentence)
            is_new = any(
                not contains(source.passage.text, entity.text) for entity in find_entities(sentence)
            )
            shared = len(words & source.passage.content_words)
            if is_new and shared <= _MOST_SHARED * len(words):
                foreign.append(sentence)
    return foreign


def _alter_further(source: Source, rng: random.Random) -> Twins | None:
    """Alter one of the sentences that follow a right answer."""
    form = choose_form(source, rng)
    if form is None or form.kind == "value":
        return None
    usable = list_further_sentences(form.right, source)
    altered = []
    for text in usable:
        swapped = swap_entity(text, source, rng)
        others = (swapped, swapped, flip_relation(text, rng), negate_sentence(text, rng))
        changed = rng.choice(others)
        if changed is not None:
            altered.append((text, changed))
    if not altered:
        return None
    text, changed = rng.choice(altered)
    others_true = [other for other in usable if other != text]
    n_others = min(len(others_true), rng.choice((0, 1, 1, 2)))
    further = [text, *rng.sample(others_true, n_others)]
    rng.shuffle(further)
    right = [Sentence(sentence) for sentence in further]
    wrong = [*right]
    wrong[further.index(text)] = Sentence(changed)
    return Twins((form.right, *right), (form.right, *wrong), source.passage)


ERRORS: dict[str, Maker] = {
    "entity": _change_entity,
    "number": _change_number,
    "date": _change_date,
    "other_answer": _take_other_answer,
    "negation": _negate,
    "relation": _flip_relation,
    "unsupported_addition": _add_unsupported,
    "wrong_sentence": _alter_further,
}
