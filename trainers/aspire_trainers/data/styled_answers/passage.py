"""Facts in a text: the names, dates and numbers that stand in it."""

from __future__ import annotations

import re
from dataclasses import dataclass

_MONTHS = (
    "January|February|March|April|May|June|July|August|September|October|November|December"
    "|Jan\\.|Feb\\.|Aug\\.|Sept\\.|Oct\\.|Nov\\.|Dec\\."
)
_WEEKDAYS = "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday"
NUMBER_WORDS = (
    "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen"
    "|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred"
)
_DATE = (
    rf"(?:{_MONTHS}) \d{{1,2}},? \d{{4}}|\d{{1,2}} (?:{_MONTHS}) \d{{4}}|(?:{_MONTHS}) \d{{4}}"
    rf"|(?:{_MONTHS}) \d{{1,2}}\b(?!,? \d)|\d{{1,2}} (?:{_MONTHS})"
)
_FIGURE = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_SCALE = r"(?: (?:thousand|million|billion|trillion))?"
_ENTITY_PATTERNS = {
    "date": re.compile(rf"\b(?:{_DATE})(?![\w-])"),
    "year": re.compile(
        r"(?<![\w.,$€£¥#–—-])(?:1[0-9]|20)\d\d(?![\w%–—-]|[.,]\d| (?:million|billion|people|years))"
    ),
    "money": re.compile(rf"(?:US)?[$€£¥](?:{_FIGURE}){_SCALE}(?![\w–—-])"),
    "percent": re.compile(rf"(?<![\w.,$])(?:{_FIGURE})(?:%| percent| per cent)(?!\w)"),
    "number": re.compile(
        rf"(?<![\w.,$€£¥#\[/–—-])(?:{_FIGURE}|{NUMBER_WORDS}){_SCALE}"
        r"(?![\w%\]/–—°-]|[.,]\d| percent| per cent)",
        re.IGNORECASE,
    ),
}
_CAPITALISED = r"[a-z]?[A-Z](?:[\w’'&]*[a-zA-Z\w]|\.)(?:-[A-Z]\w+)?"
_NAME = re.compile(
    rf"(?<![\w.$-]){_CAPITALISED}(?:(?: of| of the| de| von| van|)? {_CAPITALISED})*(?![\w-])"
)
_NO_NAMES = re.compile(
    rf"(?:{_MONTHS}|{_WEEKDAYS}|The|A|An|In|On|At|By|He|She|It|They|His|Her|Its|Their|This|That|These|Those|There|We|I|You"
    r"|However|Although|While|When|After|Before|During|Since|For|From|With|As|If|But|And|Or|Both|Many|Most|Some|Other"
    r"|Another|One|Also|According|Such|To|Of|Under|Over|Despite|Because|Among|Between|Within|Through|Each|Every|All|Its"
    r"|Mr\.|Mrs\.|Dr\.|St\.|No\.|[A-Z]\.?)"
)
# Adjectives of countries and faiths, and the like, which no name can take the place of.
_ADJECTIVES = re.compile(
    r"[A-Z][a-z]+(?:ish|ese|ians?|ic|ch|eans?|icans?|ists?)|Dutch|Thai|Greeks?|Asians?|Jews?|Germans?"
)
_PLURAL = re.compile(r"(?:['’]s|(?<=[^s])(?<=\w\w\w)s)$")
_WORD = re.compile(r"\w+(?:['’]\w+)?")
_STOP_WORDS_TEXT = (
    "a an the of in on at by to for from with as and or but is are was were be been being has have had do does did who "
    "whom whose what which when where why how much many that this these those it its he his she her they their there "
    "than then into about after before during not also such one other name called most first"
)
_STOP_WORDS = frozenset(_STOP_WORDS_TEXT.split())

_FUNCTION_WORDS_TEXT = (
    "and or but of in on at by to for from with as is are was were has have had be been who which that where when "
    "while after before during until since into over under between among through did does do "
    "can could will would may might "
    "than also then about against because if so both"
)
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS_TEXT.split())


@dataclass(frozen=True, slots=True)
class Entity:
    """A name, date or number in a text.

    Attributes:
        text: its wording.
        kind: `name`, `date`, `year`, `money`, `percent` or `number`.
        start: its first character.
        end: the character after its last.
    """

    text: str
    kind: str
    start: int
    end: int


def find_entities(text: str) -> list[Entity]:
    """Return the names, dates and numbers of a text in their order. No two of them overlap."""
    entities: list[Entity] = []
    for kind, pattern in _ENTITY_PATTERNS.items():
        for match in pattern.finditer(text):
            entities.append(Entity(match[0], kind, match.start(), match.end()))
    entities.extend(_find_names(text))
    kept: list[Entity] = []
    for entity in entities:  # The first kind wins: a date before its year.
        if all(entity.end <= other.start or other.end <= entity.start for other in kept):
            kept.append(entity)
    return sorted(kept, key=lambda entity: entity.start)


def _find_names(text: str) -> list[Entity]:
    names = []
    for match in _NAME.finditer(text):
        start, name = match.start(), match[0]
        # A sentence's first word is capitalised whatever it is.
        first, _, rest = name.partition(" ")
        if _NO_NAMES.fullmatch(first):
            name = rest
            start = match.end() - len(rest)
        name = name.removesuffix("'s").removesuffix("’s")
        begins_sentence = not re.search(
            r"[\w,;:)–—-][\"'“‘(]*\s+[\"'“‘(]*$|\w[\"'“‘(]+$", text[:start]
        )
        # A capital at the beginning of a sentence says nothing.
        words = name.split()
        is_sure = not begins_sentence or (len(words) > 1 and words[1][0].isupper())
        if not name or _NO_NAMES.fullmatch(name) or not is_sure:
            continue
        if _ADJECTIVES.fullmatch(name.split()[0]):
            continue
        if len(name) > 2 and not name.endswith("."):
            names.append(Entity(name, "name", start, start + len(name)))
    return names


def classify(text: str) -> str:
    """Return the kind of an answer: that of an entity, or `phrase`."""
    stripped = text.strip().rstrip(".").strip("\"'“”")
    bare = re.sub(
        r"^(?:the|about|over|around|nearly|almost|approximately|more than|in|on) ", "", stripped
    )
    for kind, pattern in _ENTITY_PATTERNS.items():
        if pattern.fullmatch(bare):
            return kind
    words = [word for word in bare.split() if word.lower() not in _STOP_WORDS]
    capitalised = bool(words) and all(word[:1].isupper() for word in words)
    return (
        "name"
        if capitalised and not _NO_NAMES.fullmatch(bare) and not _ADJECTIVES.fullmatch(bare)
        else "phrase"
    )


def find_content_words(text: str) -> set[str]:
    """Return the different words of a text without those that stand in any text, in small letters and the singular."""
    words = (word.casefold() for word in _WORD.findall(text))
    return {_PLURAL.sub("", word) for word in words if word not in _STOP_WORDS}


def contains(text: str, phrase: str) -> bool:
    """Tell whether a phrase stands in a text as whole words, in any case."""
    return re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text, re.IGNORECASE) is not None


def find_article(text: str, name: str) -> str:
    """Return "the " if a name or phrase has this article in a text, and is no part of a longer noun there."""
    for found in re.finditer(rf"\b[Tt]he {re.escape(name)}(?!\w)", text):
        following = re.match(r"[-'’]?\s?([\w-]*)", text[found.end() :])
        word = following[1] if following else ""
        if not word or word in FUNCTION_WORDS or text[found.end() : found.end() + 1] in ",.;:)":
            return "the "
    return ""
