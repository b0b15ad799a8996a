"""Texts of rejected answers, and the ways in which another text can repeat them."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

# From this many letters on, an answer is found inside longer words too.
_LONG_ANSWER = 8
# An answer with fewer letters may be a part of a path, a code or an id ("docs/en.md") without being stated there.
_SHORT_ANSWER = 4
# A text of at least this many words that the answer contains is a piece of it.
_PIECE_WORDS = 3

_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]")
_WORD = re.compile(r"[^\W_]+")
_WHITE_SPACE = re.compile(r"\s")
_ESCAPED_CHARACTER = re.compile(r"\\u([0-9a-fA-F]{4})")
_OTHER_ESCAPE = re.compile(r"\\.")
# Chinese, Japanese, Korean, Thai, Lao, Myanmar and Khmer write words without spaces, or endings without a break.
_UNSPACED_LETTER = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
)


def normalize(text: str) -> str:
    """Return the words of a text in lower case with single spaces between them.

    Texts that differ in case, punctuation, Markdown or white space alone thus become equal. A text without letters
    and digits is only stripped.
    """
    visible = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
    words = _WORD.findall(visible.casefold())
    return " ".join(words) or text.strip()


@dataclass(frozen=True)
class RejectedTexts:
    """The texts that must not leave.

    Attributes:
        answers: the rejected answers. An empty answer is nowhere else, since every text contains it.
        known_texts: normalized texts that the caller or a retriever gave. An answer inside a quotation of such a
            text is not stated there.
    """

    answers: frozenset[str]
    known_texts: frozenset[str] = frozenset()

    @classmethod
    def from_answers(cls, answers: Iterable[str], known_texts: Iterable[str] = ()) -> RejectedTexts:
        """Make the rejected texts of answers. An answer in JSON is rejected with each text that it holds."""
        texts: set[str] = set()
        for answer in answers:
            texts.add(answer.strip())
            texts.update(text.strip() for text in iterate_texts(parse_json(answer)))
        return cls(frozenset(texts - {""}), frozenset(map(normalize, known_texts)))

    def is_answer(self, text: str) -> bool:
        """Tell whether a text is a rejected answer, apart from case, punctuation and white space."""
        return text.strip() in self.answers or normalize(text) in self._normalized

    def is_answer_number(self, number: Any) -> bool:
        """Tell whether a number is a rejected answer."""
        return number in self._numbers or self.is_answer(str(number))

    def is_parsed_answer(self, value: Any) -> bool:
        """Tell whether a plain value is the content of a rejected answer in JSON."""
        return any(value == parsed for parsed in self._parsed_answers)

    def repeats(self, text: str) -> bool:
        """Tell whether a text is, states or quotes a rejected answer or a piece of one."""
        if not self.answers or not text:
            return False
        if self.is_answer(text):
            return True
        return any(self._states(form) or self._is_piece(form) for form in _list_readings(text))

    def has_part(self, text: str) -> bool:
        """Tell whether a rejected answer contains this text, however short it is."""
        part = normalize(text)
        if len(part) < 2 and not part.isdigit():
            return False
        return any(_contains(answer, part, anywhere=False) for answer in self._normalized)

    def _states(self, text: str) -> bool:
        """Tell whether a text contains an answer outside the quotations of known texts."""
        normalized = normalize(text)
        quotations = [known for known in self._covering_texts if known in normalized]
        for known in quotations:
            normalized = normalized.replace(known, "\0")
        for answer in self.answers:
            # Combining characters may hide a long answer from the normalized text.
            if len(answer) >= _LONG_ANSWER and answer in text and not quotations:
                return True
            normalized_answer = normalize(answer)
            if not _WORD.search(normalized_answer):
                if answer in text:
                    return True
            elif self._is_long_enough(normalized_answer, text) and _contains(
                normalized, normalized_answer, anywhere=True
            ):
                return True
        return False

    def _is_long_enough(self, answer: str, text: str) -> bool:
        """Tell whether an answer is long enough to be stated by a text, which may be a path or a code."""
        if len(answer) >= _SHORT_ANSWER or _UNSPACED_LETTER.search(answer):
            return True
        return bool(_WHITE_SPACE.search(text.strip()))

    def _is_piece(self, text: str) -> bool:
        """Tell whether a text is a longer piece of an answer and not a quotation of a known text."""
        normalized = normalize(text)
        is_long = normalized.count(" ") + 1 >= _PIECE_WORDS
        if _UNSPACED_LETTER.search(normalized):
            is_long = is_long or len(normalized) >= _LONG_ANSWER
        if not is_long or not any(normalized in answer for answer in self._normalized):
            return False
        return not any(normalized in known for known in self.known_texts)

    @cached_property
    def _normalized(self) -> frozenset[str]:
        return frozenset(map(normalize, self.answers))

    @cached_property
    def _covering_texts(self) -> list[str]:
        """The known texts that contain an answer and more, the longest first."""
        covering: list[str] = []
        for known in self.known_texts:
            if any(answer in known and answer != known for answer in self._normalized):
                covering.append(known)
        return sorted(covering, key=len, reverse=True)

    @cached_property
    def _numbers(self) -> set[float]:
        numbers = set()
        for answer in self.answers:
            try:
                numbers.add(float(answer))
            except ValueError:
                continue
        return numbers

    @cached_property
    def _parsed_answers(self) -> list[Any]:
        parsed = [parse_json(answer) for answer in self.answers]
        return [value for value in parsed if isinstance(value, dict | list) and value]


def parse_json(text: str) -> Any:
    """Return the dict, list or string that a text holds as JSON, or None if it is not JSON of that kind."""
    if text.strip()[:1] not in ("{", "[", '"'):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def iterate_texts(value: Any) -> Iterator[str]:
    """Iterate over the strings in a value that was read from JSON, keys left out."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def _list_readings(text: str) -> list[str]:
    """Return a text as it is, and as it reads once the escapes of JSON or Python are undone."""
    if "\\" not in text:
        return [text]
    unescaped = _ESCAPED_CHARACTER.sub(lambda match: chr(int(match[1], 16)), text)
    return [text, _OTHER_ESCAPE.sub(" ", unescaped)]


def _contains(text: str, part: str, *, anywhere: bool) -> bool:
    """Tell whether a normalized text contains a normalized part, as whole words unless the part is long.

    Args:
        text: the text to search.
        part: the text to find.
        anywhere: find a long part inside longer words too.
    """
    if not part:
        return False
    is_long = anywhere and len(part) >= _LONG_ANSWER
    if is_long or _UNSPACED_LETTER.search(part) or not _WORD.search(part):
        return part in text
    start = text.find(part)
    while start >= 0:
        end = start + len(part)
        if not text[start - 1 : start].isalnum() and not text[end : end + 1].isalnum():
            return True
        start = text.find(part, start + 1)
    return False
