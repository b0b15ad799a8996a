"""Wrong values: other names, dates and numbers of the passage that could stand in the place of a reference."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

from aspire_trainers.data.styled_answers.claims import Form
from aspire_trainers.data.styled_answers.passage import (
    NUMBER_WORDS,
    Entity,
    classify,
    contains,
    find_content_words,
)
from aspire_trainers.data.styled_answers.source import Source

_PLACE_WORDS = frozenset({"in", "at", "from", "near", "to", "across", "outside"})
# Between a place and the larger one that it is a part of.
_LINKS = (", ", " in ", " of ", " in the ", " of the ", " (", " or ", "'s ")
_UNIT = re.compile(r" (?:°|degrees|inches|feet|miles|km|m|kg|square|acres|percent)")
_YEAR_STEPS = (-12, -7, -4, -3, -2, -1, 1, 2, 3, 4, 7)
_MOST_WORDS_CHANGED = 10
_LIKELY_LENGTHS = (0.4, 2.5)


def list_entities_like(source: Source, form: Form) -> list[str]:
    """Return the names, dates or numbers of the passage that stand in it as the reference does."""
    text = source.passage.text
    kind = classify(form.value)
    value = form.value.removeprefix("the ")
    return [
        form.add_article(entity.text, text)
        for entity in source.passage.entities
        if entity.kind == kind and _stands_alike(entity, value, text)
    ]


def list_answers_like(source: Source, form: Form) -> list[str]:
    """Return the references of other questions about the passage that are of the reference's kind."""
    values = []
    for sibling in source.siblings:
        for reference in sibling.references:
            value = reference.strip().rstrip(".")
            if value and _is_alike(form.value, value, source.record.question, sibling.question):
                values.append(form.add_article(value, source.passage.text))
    return values


def choose_wrong_value(
    source: Source, form: Form, candidates: Sequence[str], rng: random.Random
) -> str | None:
    """Return one of the candidates that is wrong, preferably one that looks like the reference."""
    wrong = [value for value in dict.fromkeys(candidates) if _is_wrong(source, form, value)]
    alike = [value for value in wrong if _has_same_shape(value, form.value)]
    return rng.choice(alike or wrong) if wrong else None


def invent_values(value: str, rng: random.Random) -> list[str]:
    """Return the value with another number in it: a near year, or a number of the same size."""
    year = re.search(r"\b(?:1\d|20)\d\d\b", value)
    if year:
        changed = str(int(year[0]) + rng.choice(_YEAR_STEPS))
        return [value[: year.start()] + changed + value[year.end() :]]
    found = re.search(r"\d[\d,]*(?:\.\d+)?", value)
    if found:
        changed = _change_figure(found[0], rng)
        return [value[: found.start()] + changed + value[found.end() :]]
    words = NUMBER_WORDS.split("|")
    if value not in words[:_MOST_WORDS_CHANGED]:
        return []
    return [words[words.index(value) + rng.choice((1, 2, 3))]]


def _change_figure(figure: str, rng: random.Random) -> str:
    """Return another number with as many decimals, and with as many zeros at the end."""
    digits = re.sub(r"\D", "", figure)
    decimals = len(figure.partition(".")[2])
    significant = digits.rstrip("0") or "0"
    zeros = len(digits) - len(significant)
    step = max(1, round(int(significant) * rng.uniform(0.1, 0.5)))
    changed = int(significant) + rng.choice((-step, step))
    if changed < 1:
        changed = int(significant) + step
    number = changed * 10**zeros / 10**decimals
    return f"{number:,.{decimals}f}" if "," in figure else f"{number:.{decimals}f}"


def are_nested(one: str, other: str, source: Source) -> bool:
    """Tell whether one name may be a part of the other, as in "Houston, Texas"."""
    for text in source.passage.sentences:
        for link in _LINKS:
            if f"{one}{link}{other}" in text or f"{other}{link}{one}" in text:
                return True
    return False


def is_place(text: str, position: int) -> bool:
    """Tell whether the name at a position of a text stands after a word such as "in"."""
    words = text[:position].removesuffix("the ").split()
    return bool(words) and words[-1].lower() in _PLACE_WORDS


def _stands_alike(entity: Entity, value: str, text: str) -> bool:
    """Tell whether an entity of the text stands as the value does: both before a unit, or both after "in"."""
    position = text.find(value)
    if entity.kind == "name":
        return is_place(text, entity.start) == is_place(text, position)
    has_unit = [bool(_UNIT.match(text[end:])) for end in (entity.end, position + len(value))]
    return has_unit[0] == has_unit[1]


def _is_wrong(source: Source, form: Form, value: str) -> bool:
    question = source.record.question
    if source.is_reference(value) or (" and " in value) != (" and " in form.value):
        return False
    if contains(form.before + form.after, value):
        return False
    if find_content_words(value) <= find_content_words(question):
        return False
    if classify(value) != "name":
        return True
    return not are_nested(value, form.value, source) and not _share_place(source, form, value)


def _share_place(source: Source, form: Form, value: str) -> bool:
    """Tell whether two places share a sentence, as a town and its country often do."""
    reference = form.value.removeprefix("the ")
    if not is_place(source.passage.text, source.passage.text.find(reference)):
        return False
    return any(reference in text and value in text for text in source.passage.sentences)


def _has_same_shape(value: str, other: str) -> bool:
    """Tell whether two values agree in having several words, in their article and in a word such as "million"."""
    return all(
        first == second for first, second in zip(_describe(value), _describe(other), strict=True)
    )


def _describe(value: str) -> Iterator[bool]:
    yield " " in value.removeprefix("the ")
    yield value.startswith("the ")
    yield re.search(r"illion|thousand|hundred", value) is not None
    yield "." in value


def _is_alike(value: str, other: str, question: str, other_question: str) -> bool:
    """Tell whether two answers are of the same kind, so that one may stand for the other."""
    kind = classify(value)
    shortest, longest = _LIKELY_LENGTHS
    if kind != classify(other) or not shortest <= len(value) / len(other) <= longest:
        return False
    asks, other_asks = (text.lower().split()[:2] for text in (question, other_question))
    if kind == "name":
        return all((word in asks) == (word in other_asks) for word in ("who", "where"))
    if kind == "phrase":
        same_words = _describe_words(value) == _describe_words(other)
        return asks == other_asks and same_words
    return True


def _describe_words(phrase: str) -> tuple[str, str]:
    """Return how a phrase begins, and how its first word ends."""
    first = phrase.lower().split()[0]
    ending = re.search(r"(?:ing|ed|s|ly)?$", first)
    start = first if first in {"the", "a", "an", "to", "in", "by", "for"} else ""
    return start, ending[0] if ending else ""
