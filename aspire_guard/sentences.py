"""Sentences of a text: their offsets, and which of them are finished in a text that still grows.

sentencex, the splitter of the Wikimedia Foundation, knows abbreviations, initials, numbers and the
marks of most scripts. This module adds the lines of Markdown, and joins pieces that say nothing on
their own, such as the number of a list, to their neighbours.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Literal, NamedTuple

import sentencex

# Abbreviations before a word or a number, after which sentencex would end the sentence.
_ABBREVIATIONS = frozenset(
    (
        *("approx", "ca", "cf", "chap", "ed", "eds", "eq", "eqs", "ex", "fl", "ft"),
        *("incl", "mt", "par", "pp", "pt", "ref", "refs", "sect", "vol", "vols"),
    )
)
# Words that say nothing without the word after them.
_TITLES = frozenset(
    (
        *("capt", "col", "dr", "fig", "gen", "gov", "hon", "lt"),
        *("mr", "mrs", "ms", "prof", "rev", "sen", "sgt", "st"),
    )
)

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_FENCE = re.compile(r"[ \t]*(?:```|~~~)")
_HEADING = re.compile(r"[ \t]*#{1,6}(?:\s|$)")
_TABLE_ROW = re.compile(r"[ \t]*\|")
_NUMBER = r"\(?(?:\d{1,3}|[a-zA-Z]|[ivx]{2,5})\)\s|\d{1,3}(?:\.\s|、)"
_LIST_ITEM = re.compile(rf"[ \t>]*(?:[-*+•‣◦·]\s|{_NUMBER})")
_MARKER = re.compile(r"[\s>]*(?:[-*+•‣◦·]|#{1,6}|\(?\w{1,5}[.)、])\s*")

_CITATION = r"\[\^?\d{1,4}(?:[,–-] ?\d{1,4}){0,9}\]"
_WRAPPERS = r"\"'`“”„‟‘’‚‛«»‹›《》「」『』【】()（）<>{}\[\]@*_"
# sentencex is shown no citation marks, quotation marks, brackets or emphasis. It would search all of
# its text for the partner of each, and find other sentences in a text as soon as that one arrives.
_UNSEEN = re.compile(rf"\s?{_CITATION}|[{_WRAPPERS}]+")
_AFTER_MARK = re.compile(rf"[\"'”’»›」』】》)）}}\]*_]*(?:\s*{_CITATION})*")
_SPACE = re.compile(r"\s*")
_SURROGATE_OR_SPACE = re.compile("[\ud800-\udfff]|\\s")

_LAST_WORD = re.compile(r"(?<![^\W_])([^\W\d_]{2,6})\.$")
_WORD = re.compile(r"[^\W\d_]+")
# Letters of scripts that put no spaces between words: Thai to Lao, Burmese, Khmer, Chinese, Japanese.
_UNSPACED_LETTER = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\ua4cf\uf900-\ufaff\U00020000-\U0003ffff]"
)


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Return the start and the end of each sentence, in characters.

    The sentences cover the text without gaps: white space belongs to the sentence before it, and at
    the beginning of the text to the first. An item of a list, a row of a table and a block of code
    are sentences of their own. A heading belongs to the sentence after it. A piece without a word,
    such as the number of a list, an initial, "Dr." or a citation mark, is part of its neighbour.
    Abbreviations are known in English, and the marks that end a sentence in any script.

    The time is linear in the length of the text. An empty text has no sentences.
    """
    sentences: list[tuple[int, int]] = []
    opening: int | None = None  # the start of the pieces that belong to the sentence after them
    for piece in _find_pieces(text):
        says_nothing = not _has_word(text, piece)
        if piece.is_heading or (says_nothing and _opens_sentence(text, piece, opening, sentences)):
            opening = piece.start if opening is None else opening
        elif says_nothing:
            sentences[-1] = (sentences[-1][0], piece.end)
        else:
            sentences.append((piece.start if opening is None else opening, piece.end))
            opening = None
    if opening is not None:
        start = sentences.pop()[0] if sentences else opening
        sentences.append((start, len(text)))
    return sentences


def find_finished_end(text: str) -> int:
    """Return the end of the finished sentences of a text that still grows, or 0 if there are none.

    A sentence is finished once a word of the next sentence is complete, because that word tells an
    abbreviation from an end ("the U.S. Navy"). The end is one of `split_sentences`.
    """
    end = len(text)
    while end and text[end - 1].isalnum() and not _UNSPACED_LETTER.match(text[end - 1]):
        end -= 1
    sentences = split_sentences(text[:end])
    return sentences[-1][0] if sentences else 0


class _Piece(NamedTuple):
    """A part of a text that may be a sentence.

    Attributes:
        start: its first character.
        end: the end of the white space after it.
        is_heading: True if it is a line that Markdown marks as a heading.
        starts_block: True if it stands at the beginning of a paragraph or of a list item.
    """

    start: int
    end: int
    is_heading: bool
    starts_block: bool


class _Block(NamedTuple):
    """A paragraph, a list item, a heading, a row of a table or a block of code."""

    start: int
    end: int
    kind: Literal["prose", "heading", "row", "code"]


def _has_word(text: str, piece: _Piece) -> bool:
    """Tell whether a piece has a word beyond initials and abbreviations."""
    for match in _WORD.finditer(text, piece.start, piece.end):
        word = match.group().lower()
        # A single letter is an initial or a list letter, except in scripts without capital letters.
        is_initial = len(word) == 1 and word != word.upper()
        if not is_initial and word not in _TITLES and word not in _ABBREVIATIONS:
            return True
    return False


def _opens_sentence(
    text: str, piece: _Piece, opening: int | None, sentences: list[tuple[int, int]]
) -> bool:
    """Tell whether a piece without a word belongs to the sentence after it."""
    if opening is not None or not sentences:
        return True
    return piece.starts_block and _MARKER.fullmatch(text, piece.start, piece.end) is not None


def _find_pieces(text: str) -> Iterator[_Piece]:
    """Yield the pieces of a text, which cover it without gaps."""
    for block in _find_blocks(text):
        start = block.start
        if block.kind == "prose":
            for end in _find_ends(text[block.start : block.end]):
                yield _Piece(start, block.start + end, False, start == block.start)
                start = block.start + end
        yield _Piece(start, block.end, block.kind == "heading", start == block.start)


def _find_blocks(text: str) -> Iterator[_Block]:
    """Yield the blocks of a text, each with the empty lines after it."""
    start, kind = 0, None
    after_empty_line = False
    is_open_code = False
    for match in _LINE.finditer(text):
        line = match.group()
        if is_open_code:
            is_open_code = _FENCE.match(line) is None
            continue
        if not line.strip():
            after_empty_line = True
            continue
        line_kind = _find_line_kind(line)
        continues = line_kind == "prose" == kind and not after_empty_line
        if not continues or _LIST_ITEM.match(line):
            if kind is not None:
                yield _Block(start, match.start(), kind)
                start = match.start()
            kind = line_kind
        after_empty_line = False
        is_open_code = line_kind == "code"
    if start < len(text):
        yield _Block(start, len(text), kind or "prose")


def _find_line_kind(line: str) -> Literal["prose", "heading", "row", "code"]:
    if _FENCE.match(line):
        return "code"
    if _HEADING.match(line):
        return "heading"
    return "row" if _TABLE_ROW.match(line) else "prose"


def _find_ends(block: str) -> Iterator[int]:
    """Yield the ends of the sentences in a block of prose, except the last, with white space after them."""
    seen, seen_starts, block_starts = _hide_wrappers(block)
    for boundary in sentencex.get_sentence_boundaries("en", seen)[:-1]:
        sentence = boundary["text"].rstrip()
        if not sentence:
            continue
        last = boundary["start_index"] + len(sentence) - 1
        part = bisect_right(seen_starts, last) - 1
        mark = block_starts[part] + last - seen_starts[part]
        end = _skip(_AFTER_MARK, block, mark + 1)
        end_with_space = _skip(_SPACE, block, end)
        is_inside_word = end == end_with_space and block[mark] in ".!?"
        if not is_inside_word and not _ends_with_abbreviation(block, mark + 1):
            yield end_with_space


def _skip(pattern: re.Pattern[str], text: str, start: int) -> int:
    """Return the end of a pattern that begins at `start`."""
    match = pattern.match(text, start)
    return match.end() if match else start


def _hide_wrappers(block: str) -> tuple[str, list[int], list[int]]:
    """Return a block as sentencex is shown it, and the starts of its unbroken parts in it and in the block."""
    parts: list[str] = []
    seen_starts, block_starts = [0], [0]
    start = length = 0
    for match in _UNSEEN.finditer(block):
        parts.append(block[start : match.start()])
        length += match.start() - start
        start = match.end()
        seen_starts.append(length)
        block_starts.append(start)
    parts.append(block[start:])
    return _SURROGATE_OR_SPACE.sub(" ", "".join(parts)), seen_starts, block_starts


def _ends_with_abbreviation(block: str, end: int) -> bool:
    last_word = _LAST_WORD.search(block, max(0, end - 8), end)
    return last_word is not None and last_word.group(1).lower() in _ABBREVIATIONS
