"""Statements made from a question and its answer by rules: "Who wrote Emma?", "Jane Austen" → "Jane Austen wrote Emma."

A rule applies only to questions that it turns into good English. Most questions have no rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from aspire_trainers.data.styled_answers.passage import NUMBER_WORDS, classify

# base form: past tense, past participle
_IRREGULAR_TEXT = """
become became become|begin began begun|break broke broken|bring brought brought|build built built|buy bought bought
|catch caught caught|choose chose chosen|come came come|draw drew drawn|drive drove driven|fall fell fallen
|feel felt felt|fight fought fought|find found found|fly flew flown|get got got|give gave given|go went gone
|grow grew grown|hear heard heard|hold held held|keep kept kept|know knew known|lead led led|leave left left
|lose lost lost|make made made|meet met met|pay paid paid|rise rose risen|run ran run|say said said|see saw seen
|sell sold sold|send sent sent|sing sang sung|speak spoke spoken|spend spent spent|steal stole stolen|take took taken
|teach taught taught|tell told told|think thought thought|throw threw thrown|wear wore worn|win won won
|write wrote written|bear bore born|show showed shown|overthrow overthrew overthrown|undergo underwent undergone
|withdraw withdrew withdrawn|shoot shot shot|strike struck struck|sign signed signed
"""
_REGULAR_TEXT = """
abandon accept achieve acquire add adopt allow announce appear appoint approve arrive ask assist attack attempt attend
attract award base believe call cause cease change claim close collaborate collapse compare compete complete compose
conduct conquer consider contain continue contribute convert cover create criticize declare defeat deliver describe
destroy develop die direct discontinue discover donate earn embrace employ enact enter establish estimate exist expand
experience express face fail feature finish form found gain generate graduate grant happen help host identify
immigrate implement improve include increase influence inhabit inspire install introduce invade invent invite
issue join kill last launch learn leave live locate marry mention merge move name nominate obtain occur occupy offer
open operate order organize originate own paint participate pass perform play portray prefer prepare present produce
promise promote propose protect prove provide publish purchase reach receive record recognize refer refuse reject
release remain remove rename replace report represent require resign retire return reveal rule score select serve
settle share sign start stay stop study succeed suffer suggest support surrender talk teach threaten tour travel try
use visit want warn win work
"""


def _read_verbs() -> tuple[dict[str, str], set[str], set[str]]:
    """Return the past tense of each known base form, all past tenses, and all past participles."""
    past_by_base, participles = {}, set()
    for base in _REGULAR_TEXT.split():
        past_by_base[base] = _inflect_regular(base)
        participles.add(past_by_base[base])
    for entry in _IRREGULAR_TEXT.split("|"):
        base, past, participle = entry.split()
        past_by_base[base] = past
        participles.add(participle)
    return past_by_base, set(past_by_base.values()), participles


def is_participle(word: str) -> bool:
    """Tell whether a word is a past participle: one that ends in "ed", or a known irregular one."""
    return word.endswith("ed") or word in _PARTICIPLES or word in _MORE_PARTICIPLES


def _inflect_regular(base: str) -> str:
    if base.endswith("e"):
        return base + "d"
    if re.search(r"[^aeiou]y$", base):
        return base[:-1] + "ied"
    doubles = base in {"stop", "refer", "prefer", "occur"}
    return base + base[-1] + "ed" if doubles else base + "ed"


_PAST_BY_BASE, _PASTS, _PARTICIPLES = _read_verbs()
_MORE_PARTICIPLES = frozenset({"been", "had", "done", "put", "set", "cut", "led", "let", "read"})
_PRESENTS_TEXT = (
    "owns plays operates provides governs controls publishes produces runs teaches leads hosts organizes sponsors "
    "represents contains requires holds makes serves offers uses wins"
)
_PRESENTS = frozenset(_PRESENTS_TEXT.split())
_PREPOSITIONS_TEXT = (
    "about after against along among around as at before between by during for from in into like near of off on over "
    "through to toward under until up upon with without"
)
_PREPOSITIONS = frozenset(_PREPOSITIONS_TEXT.split())
_OPEN_ENDS_TEXT = (
    "the a an his her its their my your this that these those first second third last new old of and or 's most more "
    "other same be been not"
)
_OPEN_ENDS = frozenset(_OPEN_ENDS_TEXT.split())
_QUANTITY = re.compile(
    rf"(?:(?:about|over|around|nearly|almost|approximately|more than|at least|up to) )?"
    rf"(?:[\d,.]+|one|a|{NUMBER_WORDS}|[a-z]+-(?:one|two|three|four|five|six|seven|eight|nine))"
    r"(?: (?:hundred|thousand|million|billion|trillion))*",
    re.IGNORECASE,
)


class _Parts(NamedTuple):
    """A question's words, its answer, and the word that stands before the answer in the passage."""

    words: list[str]
    answer: str
    preposition: str | None


def make_statement(question: str, answer: str, preposition: str | None = None) -> str | None:
    """Return a sentence that answers the question, or None if no rule makes a good one.

    Args:
        question: the question, which must begin with its question word.
        answer: the answer, without a full stop.
        preposition: the preposition before the answer in the passage, for questions about times and places.
    """
    text = question.strip()
    if (
        not text.endswith("?")
        or re.search(r"[?!:;\"“”]|\.\s", text[:-1])
        or re.search(r"\bor\b", text)
    ):
        return None
    words = text[:-1].split()
    if not 3 <= len(words) <= 22 or not words[-1].strip(",") or len(answer.split()) > 12:
        return None
    if re.match(r"(?i)(?:who|what|which|because|to|by|it|he|she|they|there) ", answer + " "):
        return None
    parts = _Parts([words[0].lower(), *words[1:]], answer, preposition)
    for rule in _RULES:
        statement = rule(parts)
        if statement:
            return statement[0].upper() + statement[1:] + "."
    return None


def _state_who(parts: _Parts) -> str | None:
    """Turn a question such as “Who wrote Emma?” into “Jane Austen wrote Emma.”"""
    words, answer, _ = parts
    if words[0] != "who" or classify(answer) != "name":
        return None
    if not _can_follow_subject(words[1:]):
        return None
    return _join(answer, *_agree(words[1], answer), *words[2:])


def _agree(verb: str, subject: str) -> tuple[str]:
    """Return `was` as `were`, and so on, if the subject names several."""
    plurals = {"was": "were", "is": "are", "has": "have"}
    is_plural = " and " in subject
    return (plurals.get(verb, verb) if is_plural else verb,)


def _can_follow_subject(words: list[str]) -> bool:
    """Tell whether words that begin with a verb make a sentence after a subject."""
    if len(words) < 2 or words[-1].lower() in _PREPOSITIONS | _OPEN_ENDS:
        return False
    verb, following = words[0], words[1].lower()
    if verb in _PASTS or verb in _PRESENTS:
        return True
    if verb in {"was", "is", "were", "are"}:
        if following in _PARTICIPLES:
            return True
        has_verb = any(
            re.search(r"(?:ed|ing)$", word) or word in _PARTICIPLES for word in words[2:]
        )
        return following in {"the", "a", "an"} and not has_verb
    return verb in {"has", "had"} and following in _PARTICIPLES


def _state_which(parts: _Parts) -> str | None:
    """Turn a question such as “Which company bought Pixar?” into “Disney bought Pixar.”"""
    words, answer, _ = parts
    if words[0] not in {"what", "which"} or classify(answer) != "name":
        return None
    for position in (2, 3):
        noun, rest = words[1:position], words[position:]
        if any(
            word.lower() in _PREPOSITIONS or word in _PASTS or word in _AUXILIARIES for word in noun
        ):
            return None
        is_plural = noun[-1].endswith("s") and not noun[-1].endswith("ss")
        if not rest or is_plural:
            continue
        is_passive = rest[0] in {"was", "is"} and len(rest) > 1 and rest[1].lower() in _PARTICIPLES
        if (rest[0] in _PASTS or is_passive) and _can_follow_subject(rest):
            return _join(answer, *rest)
    return None


_AUXILIARIES_TEXT = "was is were are did does do has had have can could will would"
_AUXILIARIES = frozenset(_AUXILIARIES_TEXT.split())


def _state_identity(parts: _Parts) -> str | None:
    """Turn a question such as “What is the capital of France?” into “The capital of France is Paris.”"""
    words, answer, _ = parts
    subject = words[2:]
    if (
        words[0] not in {"what", "who"}
        or words[1] not in {"is", "was", "are", "were"}
        or len(subject) < 2
    ):
        return None
    starts_well = subject[0].lower() in {"the", "his", "her", "its", "their"} or subject[
        0
    ].endswith(("'s", "’s"))
    ends_well = subject[-1].lower() not in _PREPOSITIONS | _OPEN_ENDS
    last_is_verb = subject[-1].endswith(("ed", "ing")) or subject[-1] in _PARTICIPLES
    if (
        not starts_well
        or not ends_well
        or last_is_verb
        or subject[-1].lower() in {"known", "like", "about"}
    ):
        return None
    has_plain_noun = "of" in subject or len(subject) <= 4
    has_verb = any(word in _PARTICIPLES or word.endswith(("ing", "ed")) for word in subject)
    if not has_plain_noun or has_verb or "," in " ".join(subject):
        return None
    kind = classify(answer)
    if kind == "phrase" and not re.match(r"(?:the|a|an|his|her|its|their) ", answer):
        return None
    return _join(*subject, words[1], answer)


def _state_time_or_place(parts: _Parts) -> str | None:
    """Turn a question such as “When was Emma published?” into “Emma was published in 1815.”"""
    words = parts.words
    rest = _drop_time_or_place(words)
    if rest is None or len(rest) < 3:
        return None
    adverbial = _make_adverbial(words, parts)
    if adverbial is None or rest[-1].lower() in _PREPOSITIONS | _OPEN_ENDS:
        return None
    auxiliary, following = rest[0], rest[1:]
    if auxiliary in {"was", "were"}:
        split = _find_word(following, _PARTICIPLES)
        verb: tuple[str, ...] = (auxiliary, following[split]) if split else ()
    else:
        split = _find_word(following, frozenset(_PAST_BY_BASE))
        verb = (_PAST_BY_BASE[following[split]],) if split else ()
    if not split:
        return None
    return _join(*following[:split], *verb, *following[split + 1 :], adverbial)


def _drop_time_or_place(words: list[str]) -> list[str] | None:
    """Return the words from the auxiliary on, of a question about a time or a place."""
    if words[0] in {"when", "where"} and words[1] in {"was", "were", "did"}:
        return words[1:]
    start = 1 if words[0] in {"in", "on", "during"} else 0
    asks = words[start].lower() in {"what", "which"} and words[start + 1] in {
        "year",
        "city",
        "country",
        "state",
        "month",
    }
    if asks and len(words) > start + 2 and words[start + 2] in {"was", "were", "did"}:
        return words[start + 2 :]
    return None


def _make_adverbial(words: list[str], parts: _Parts) -> str | None:
    """Return the answer with its preposition."""
    answer = parts.answer
    kind = classify(answer)
    is_place = "where" in words[:1] or bool({"city", "country", "state"} & set(words[:3]))
    if re.match(r"(?:in|on|at|near|during|after|before|since|until|from) ", answer):
        return answer
    if is_place:
        usable = kind == "name" and parts.preposition in {"in", "at", "near", "on"}
        return f"{parts.preposition} {answer}" if usable else None
    if kind == "year":
        return f"in {answer}"
    if kind == "date":
        has_day = re.search(r"\b\d{1,2}\b(?!\d)", answer) is not None
        return f"on {answer}" if has_day else f"in {answer}"
    return None


def _find_word(words: list[str], known: frozenset[str] | set[str]) -> int:
    """Return the position of the verb after a subject, or 0 if it is not sure."""
    for position in range(1, len(words)):
        before = words[position - 1].lower()
        if words[position] in known:
            return 0 if before in _OPEN_ENDS | _PREPOSITIONS or before.endswith("'s") else position
        if words[position].lower() in _AUXILIARIES | {"that", "which", "who"}:
            return 0
    return 0


def _state_object(parts: _Parts) -> str | None:
    """Turn a question such as “What did Austen publish in 1815?” into “Austen published Emma in 1815.”"""
    words, answer, _ = parts
    if words[0] not in {"what", "who", "whom"} or words[1] != "did" or classify(answer) == "phrase":
        return None
    following = words[2:]
    split = _find_word(following, frozenset(_PAST_BY_BASE))
    if not split:
        return None
    subject, verb, rest = following[:split], _PAST_BY_BASE[following[split]], following[split + 1 :]
    if verb in {
        "named",
        "called",
        "gave",
        "said",
        "thought",
        "believed",
        "came",
        "went",
        "appeared",
        "died",
    }:
        return None
    if rest and rest[-1].lower() in _PREPOSITIONS:
        return _join(*subject, verb, *rest, answer) if len(rest) == 1 else None
    if rest and rest[0].lower() not in {
        "in",
        "on",
        "at",
        "during",
        "from",
        "with",
        "to",
        "for",
        "after",
        "before",
    }:
        return None
    return _join(*subject, verb, answer, *rest)


def _state_quantity(parts: _Parts) -> str | None:
    """Turn a question such as “How many boroughs does the city have?” into “The city has five boroughs.”"""
    words, answer, _ = parts
    if words[:2] != ["how", "many"] or not _QUANTITY.fullmatch(answer) or len(words) < 4:
        return None
    noun, rest = _split_noun(words[2:])
    if (
        not noun
        or not noun[-1].endswith("s")
        or not rest
        or rest[-1].lower() in _PREPOSITIONS | _OPEN_ENDS
    ):
        return None
    if answer in {"1", "one", "a"}:
        return None
    if rest[0] in _PASTS and len(rest) > 1:
        return _join(answer, *noun, *rest)
    if rest[0] in {"were", "are"} and len(rest) > 1 and rest[1] in _PARTICIPLES:
        return _join(answer, *noun, *rest)
    if rest[0] in {"are", "were"} and rest[1:2] == ["there"]:
        return _join("there", rest[0], answer, *noun, *rest[2:])
    if rest[0] in {"does", "did"} and rest[-1] == "have" and len(rest) > 2:
        return _join(*rest[1:-1], "has" if rest[0] == "does" else "had", answer, *noun)
    return None


def _split_noun(words: list[str]) -> tuple[list[str], list[str]]:
    """Split a noun of one to three words from the verb after it."""
    for position in (1, 2, 3):
        if words[position : position + 1] and words[position] in _PASTS | _AUXILIARIES:
            return words[:position], words[position:]
    return [], []


def _join(*words: str) -> str:
    return " ".join(words)


_RULES: tuple[Callable[[_Parts], str | None], ...] = (
    _state_who,
    _state_which,
    _state_identity,
    _state_time_or_place,
    _state_object,
    _state_quantity,
)
