"""Texts of settings that were altered at random places, for tests of what reads them."""

from __future__ import annotations

from hypothesis import strategies as st

_INSERTED = st.sampled_from(
    [
        *("\x00", "\ud800", "\n", "\t", "'", '"', ": ", " = ", "#", "ünï"),
        *("[" * 3000, "{a: " * 60, "- " * 60, "&a ", "*a", "!!python/name:os.system "),
        *("1e999", "-1", "nan", "true", "null", "9" * 5000, "threshold: 0\n", "[task]\n"),
    ]
)


@st.composite
def altered_texts(draw: st.DrawFn, original: str) -> str:
    """Draw the text with one to four pieces left out, repeated, or replaced."""
    text = original
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 40)))
        piece = draw(st.one_of(st.just(""), st.just(text[start:end] * 2), _INSERTED))
        text = text[:start] + piece + text[end:]
    return text
