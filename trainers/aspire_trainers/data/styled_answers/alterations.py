"""Sentences made wrong: a denial, the opposite of a word, another name or number of the passage."""

from __future__ import annotations

import random
import re

from aspire_trainers.data.styled_answers.passage import (
    FUNCTION_WORDS,
    Entity,
    contains,
    find_content_words,
    find_entities,
)
from aspire_trainers.data.styled_answers.source import Source
from aspire_trainers.data.styled_answers.statements import is_participle
from aspire_trainers.data.styled_answers.values import are_nested, is_place

_OPPOSITES_TEXT = """
before:after more:less first:last largest:smallest highest:lowest oldest:youngest older:younger higher:lower
larger:smaller increased:decreased increase:decrease northern:southern eastern:western north:south east:west
began:ended earlier:later longest:shortest most:least best:worst early:late won:lost always:never greater:smaller
above:below upper:lower majority:minority father:mother brother:sister son:daughter husband:wife allowed:forbade
accepted:rejected longer:shorter many:few including:excluding gained:lost rose:fell started:stopped
"""
_FIXED_PHRASES = re.compile(
    r"\b(?:named after|look(?:ed|ing|s)? after|after all|more and more|once more|no more|more or less|less than a"
    r"|at (?:first|last|most|best|least)|(?:best|first|most)-|best known|best friend"
    r"|first (?:name|lady|class|hand|aid|and|began|beginning)|most of|most (?:[a-z]+ly|often)"
    r"|(?:as|how|so|too|not|the) many|many of|son of|lost to|fell (?:to|on|in|into|under)|won over|early on"
    r"|(?:day|year|soon|shortly|long|one) (?:after|before)|before long|(?:began|started) (?:to|\w+ing))",
    re.I,
)
# "Most artists" has no opposite, unlike "the most famous".
_BEFORE_SUPERLATIVE = re.compile(r"(?:\bthe|['’]s|\bits|\bher|\bhis|\btheir) $")
_AUXILIARY = re.compile(
    r"(?<![\w'’-])(?:is|are|was|were|has|have|had|can|could|will|would|may|must)(?= [a-z])"
)
_NEGATED = re.compile(
    r"\b(?:not|no|never|nor|neither|only|without|none|few|hardly|\w+n['’]t|cannot|all|any|ever|yet)\b",
    re.I,
)
# After a comma or a relative pronoun an auxiliary may belong to a side clause.
_SIDE_CLAUSE = re.compile(
    r",|\b(?:that|which|who|where|when|while|if|as|than|and|because|what|said|believed)\b", re.I
)
# "Some are not" may be true beside "some are".
_QUANTIFIED = re.compile(
    r"(?:Many|Some|Several|Most|Hundreds|Thousands|Millions|Few|Other|Others|Half|Part|Much|A number|About|Over|Around"
    r"|Nearly|Almost|More than|At least|Up to|One of|\d\S*|[A-Z][a-z]+ (?:percent|million|thousand|hundred))\b"
)
_NOT_AFTER = re.compile(
    r" (?:also|largely|mainly|mostly|usually|often|generally|primarily|partly|more|about|approximately|the most|still"
    r"|just|almost|less)\b"
)
_UNSAFE_MARKS = re.compile(r"[\"“;:(—]")


def _read_opposites() -> dict[str, str]:
    opposites: dict[str, str] = {}
    for pair in _OPPOSITES_TEXT.split():
        left, right = pair.split(":")
        opposites.setdefault(left, right)
        opposites.setdefault(right, left)
    return opposites


_OPPOSITES = _read_opposites()


def negate_sentence(text: str, rng: random.Random) -> str | None:
    """Return the sentence with "not" after its first auxiliary, or None if that is no clean denial."""
    found = _AUXILIARY.search(text)
    if not found or _NEGATED.search(text) or _UNSAFE_MARKS.search(text):
        return None
    head, tail = text[: found.start()], text[found.end() :]
    if _SIDE_CLAUSE.search(head) or _QUANTIFIED.match(head) or _NOT_AFTER.match(tail):
        return None
    if found[0] in {"has", "have", "had"} and not is_participle(tail.split()[0]):
        return None
    joined = "cannot" if found[0] == "can" else f"{found[0]} not"
    return head + joined + tail


def flip_relation(text: str, rng: random.Random) -> str | None:
    """Return the sentence with the opposite of a word such as "before", or None if it has no such word."""
    if _NEGATED.search(text) or '"' in text:
        return None
    fixed = [found.span() for found in _FIXED_PHRASES.finditer(text)]
    usable = []
    for found in re.finditer(r"(?<![\w-])[a-z]+(?![\w-])", text):
        is_fixed = any(start <= found.start() < end for start, end in fixed)
        is_plain_most = found[0] == "most" and not _BEFORE_SUPERLATIVE.search(text[: found.start()])
        if found[0] in _OPPOSITES and not is_fixed and not is_plain_most:
            usable.append(found)
    if not usable:
        return None
    found = rng.choice(usable)
    return text[: found.start()] + _OPPOSITES[found[0]] + text[found.end() :]


def swap_entity(text: str, source: Source, rng: random.Random) -> str | None:
    """Return the sentence with another name, date or number of the passage in the place of one of its own."""
    swaps = []
    for entity in find_entities(text):
        if _is_part_of_noun(entity, text):
            continue
        for other in source.passage.entities:
            if other.kind == entity.kind and _can_swap(entity, other, text, source):
                swaps.append((entity, other.text))
    if not swaps:
        return None
    entity, value = rng.choice(swaps)
    return text[: entity.start] + value + text[entity.end :]


def _is_part_of_noun(entity: Entity, text: str) -> bool:
    """Tell whether a name belongs to the noun around it, as in "the IMAX company", or a number is a single digit."""
    if entity.kind != "name":
        return len(entity.text) < 2
    following = re.match(r"(?:['’]s)? ?([\w$&]*)", text[entity.end :])
    word = following[1] if following else ""
    follows_noun = bool(word) and word.lower() not in FUNCTION_WORDS and not word.endswith("ed")
    before = text[: entity.start].split()
    return follows_noun or bool(before and (before[-1][-1].isdigit() or before[-1] == "&"))


def _can_swap(entity: Entity, other: Entity, text: str, source: Source) -> bool:
    shared = find_content_words(entity.text) & find_content_words(other.text)
    if shared or contains(text, other.text):
        return False
    if entity.kind != "name":
        return True
    if are_nested(entity.text, other.text, source) or _is_abbreviation(entity.text, other.text):
        return False
    passage = source.passage.text
    same_place = is_place(text, entity.start) == is_place(passage, other.start)
    same_length = (" " in entity.text) == (" " in other.text)
    return same_place and same_length and _has_article(text, entity) == _has_article(passage, other)


def _is_abbreviation(one: str, other: str) -> bool:
    """Tell whether one name is written in capitals alone and the other begins with the same letter."""
    return (one.isupper() or other.isupper()) and one[0] == other[0]


def _has_article(text: str, entity: Entity) -> bool:
    return text[: entity.start].endswith(("the ", "The "))
