"""Passages in shapes of random depth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import HumanMessage

from aspire_guard.exchange.passages import join_passages, parse_passages

TEXT = st.text(min_size=1).filter(str.strip)
SHAPES: st.SearchStrategy[Callable[[str], Any]] = st.sampled_from(
    [
        str,
        Document,
        HumanMessage,
        lambda text: {"page_content": text},
        lambda text: {"text": text, "url": "x"},
        lambda text: {"content": text, "score": 0.5},
        lambda text: (Document(text), 0.5),
        lambda text: [text],
    ]
)


@st.composite
def make_nested(draw: st.DrawFn) -> tuple[Any, list[str]]:
    """Make a value of random shape, and the texts in it in their order."""
    texts = draw(st.lists(TEXT, max_size=6))
    value: list[Any] = []
    for text in texts:
        item = draw(SHAPES)(text)
        if draw(st.booleans()):
            value.append(item)
        else:
            value = [value, [item], None, " "]
    return value, texts


@settings(max_examples=300)
@given(make_nested())
def test_every_text_is_read_in_its_order(nested: tuple[Any, list[str]]) -> None:
    """No passage is lost in any shape, and each is read once."""
    value, texts = nested
    assert parse_passages(value) == texts
    assert join_passages(texts) == ("\n\n".join(texts) or None)


@settings(max_examples=100)
@given(make_nested(), st.sampled_from([7, 0.5, b"x", object(), {"title": "x"}, {}, {"text": 7}]))
def test_a_part_that_can_t_be_read_is_not_skipped(
    nested: tuple[Any, list[str]], unreadable: object
) -> None:
    """A list with an unreadable item is unreadable as a whole, since a passage would be missing."""
    value, _ = nested
    assert parse_passages([*value, [unreadable]]) is None
