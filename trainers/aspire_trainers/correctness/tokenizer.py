"""Words of any script.

rouge-score's own tokenizer keeps a–z and 0–9 and drops the rest, so an answer in Korean or Chinese
would always be wrong. `UnicodeTokenizer` splits any script and agrees with it on plain English.
"""

from __future__ import annotations

import re
import unicodedata

# Scripts written without spaces between words.
_UNSPACED_CHARACTER = re.compile(
    "["
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Burmese
    "\u1780-\u17ff\u19e0-\u19ff"  # Khmer
    "\u3031-\u30ff\u31f0-\u31ff\U0001aff0-\U0001b16f"  # kana
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029"  # Han radicals, 々 〆 〇, Hangzhou numerals
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"  # Han
    "]"
)
_ZERO_WIDTH_SPACE = "\u200b"

# Kinds of characters to the tokenizer. It ignores format characters, such as joiners and soft hyphens.
_WORD, _UNSPACED, _MARK, _SEPARATOR, _IGNORED = "word", "unspaced", "mark", "separator", "ignored"


class UnicodeTokenizer:
    """Splits text of any script into tokens, for `RougeScorer(tokenizer=…)`."""

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of a text, folded to one case and to NFKC.

        A token is a run of letters, digits and their combining marks. In a script without spaces it is
        one character with its marks. Decimal digits of every script become 0–9. All other characters separate tokens.
        """
        spaced: list[str] = []
        previous = _SEPARATOR
        for character in fold(text):
            kind = _classify(character)
            if kind == _IGNORED or (kind == _MARK and previous == _SEPARATOR):
                continue
            if kind == _MARK:
                spaced.append(character)
                continue
            if _UNSPACED in (kind, previous) or kind == _SEPARATOR:
                spaced.append(" ")
            if kind != _SEPARATOR:
                spaced.append(str(unicodedata.decimal(character, character)))
            previous = kind
        return "".join(spaced).split()


def fold(text: str) -> str:
    """Return the text in one case and in NFKC. Folding it again changes nothing."""
    # Folding the case can undo NFKC, so NFKC is applied twice.
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _classify(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cf" and character != _ZERO_WIDTH_SPACE:
        return _IGNORED
    if category[0] == "M":
        return _MARK
    if category[0] not in "LN":
        return _SEPARATOR
    if category != "Nd" and _UNSPACED_CHARACTER.match(character):
        return _UNSPACED
    return _WORD
