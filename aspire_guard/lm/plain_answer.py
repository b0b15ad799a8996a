"""The plain text of an answer: its sentences without markdown, citation marks and set phrases.

A guard judges the same fact as a bare word, in a sentence with a citation and in a bullet point. An
evaluator that reads the plain text gives all three the same chance. Users are shown the answer as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from aspire_guard.sentences import split_sentences

# Each pattern is linear in the length of a sentence: no repetition stands inside another.
_TABLE_RULE = re.compile(r"^[\s|:+-]*-{3}[\s|:+-]*$")
_CODE_FENCE = re.compile(r"^\s*(?:```|~~~)\w*\s*$")
_LINE_START = re.compile(
    r"^\s*(?:#{1,6}\s+|>\s*|[-*+•‣◦–—]\s+|\(?\d{1,3}[.)]\s+(?=\S)|\(?[a-zA-Z]\)\s+(?=\S))"
)
_LINK = re.compile(r"!?\[([^\[\]]{1,500})\]\([^()\s]{0,2000}\)")
_CITATION = re.compile(
    r"\s?(?:\[\^?\d{1,3}(?:\s?[,;–-]\s?\d{1,3}){0,20}\]"
    r"|\[(?:source|document|doc|passage|reference|ref|context|citation)s?\.?\s?#?\d{0,3}\]"
    r"|\((?:source|see|passage|document|doc|ref)s?\b[^()]{0,80}\)"
    r"|【[^【】]{0,80}】)",
    re.IGNORECASE,
)
# Not in "2 ** 3" and "__init__".
_EMPHASIS = re.compile(
    r"\*\*(?=\S)|(?<=\S)\*\*|~~|`+|(?<!\w)__(?=\w)(?!\w+__)|(?<!\w)\*(?=\w)|(?<=[\w.,!?])\*(?!\w)"
)
_PIPE = re.compile(r"\s*\|\s*")

_SOURCE = (
    r"(?:the |this |these |your |our )?"
    r"(?:provided |given |supplied |available |retrieved |relevant |following |above )?"
    r"(?:contexts?|passages?|documents?|documentation|texts?|information|sources?|excerpts?|articles?|materials?"
    r"|contents?|search results)"
    r"(?: (?:provided|given|supplied|above|you provided|you gave|you shared))?"
)
_OPENING = re.compile(
    r"^(?:(?:sure|certainly|of course|absolutely|great question|good question|thanks for asking)[,!.:]\s+)?(?:"
    r"(?:based (?:up)?on|according to|as per|per|from|going by|as (?:stated|mentioned|described|noted) (?:in|by))"
    rf" {_SOURCE}\s?[,:]\s"
    rf"|{_SOURCE} (?:states?|says?|mentions?|indicates?|notes?|explains?|shows?|tells us)(?: that|:)\s"
    r"|(?:the )?(?:short |final )?answer(?: to your question)?(?: is)?:\s"
    r")?",
    re.IGNORECASE,
)
_PLEASANTRY = re.compile(
    r"^(?:(?:sure|certainly|of course|absolutely|great question|good question)[!.:]?$"
    r"|(?:i )?hope (?:this|that|it) (?:helps|answers|clarifies)"
    r"|(?:please )?(?:let me know|feel free to|do not hesitate|don[’']t hesitate)\b"
    r"|is there anything else\b|anything else (?:i can|you)"
    r"|if you (?:have|need|want|would like|[’']d like) (?:any )?(?:more|further|other|additional|anything)\b"
    r"|(?:i[’']?a?m )?(?:happy|glad) to (?:help|assist|clarify|explain)\b"
    r"|have a (?:great|nice|good|lovely)\b"
    r"|here(?: i|[’'])s (?:the|what|a|an|your) [^.:]{0,80}:$"
    r"|(?:thank you|thanks)(?: for (?:asking|your question))?[!.]?$)",
    re.IGNORECASE,
)
_LONGEST_PLEASANTRY = 200


@dataclass(frozen=True)
class Sentence:
    """A sentence of an answer.

    Attributes:
        start: its first character in the answer.
        end: the end of its last character in the answer.
        text: its plain text, on one line.
    """

    start: int
    end: int
    text: str


def split_answer(answer: str) -> list[Sentence]:
    """Split an answer into the sentences that say something. A repeated sentence counts once.

    An answer that says nothing is one sentence as it stands. Only an empty answer has no sentences.
    """
    sentences: list[Sentence] = []
    seen: set[str] = set()
    for start, end in split_sentences(answer):
        shown = answer[start:end]
        text = strip_markup(shown)
        if text and text not in seen:
            seen.add(text)
            first = start + len(shown) - len(shown.lstrip())
            sentences.append(Sentence(first, start + len(shown.rstrip()), text))
    if not sentences and answer.strip():
        sentences.append(Sentence(0, len(answer), " ".join(answer.split())))
    return sentences


def strip_markup(sentence: str) -> str:
    """Return a sentence on one line, without markdown, citation marks and openings that say nothing.

    The result is empty for a sentence that says nothing at all, such as the rule under the head of a table or
    "Let me know if you need more.". The phrases are English: a sentence in another language keeps its own.
    """
    lines: list[str] = []
    for line in sentence.splitlines():
        if not _TABLE_RULE.match(line) and not _CODE_FENCE.match(line):
            lines.append(_LINE_START.sub("", line))
    text = _LINK.sub(r"\1", " ".join(lines))
    text = _CITATION.sub("", text)
    text = _EMPHASIS.sub("", text)
    text = _PIPE.sub(" ", text)
    text = " ".join(text.split())
    if len(text) <= _LONGEST_PLEASANTRY and _PLEASANTRY.match(text):
        return ""
    return _OPENING.sub("", text, count=1)
