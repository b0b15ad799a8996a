"""The shapes in which chains hand on passages: texts, documents, dicts and messages, alone or in lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# The keys or attributes that hold the text of a passage: LangChain's documents, search results, messages.
_TEXT_KEYS = ("page_content", "text", "content")


def parse_passages(value: object) -> list[str] | None:
    """Parse a text, document, message or dict with a text, or a list of them, nested or with scores.

    Returns:
        The texts that are not blank, or None if the value has another shape.
    """
    if value is None:
        return []
    if isinstance(value, list | tuple):
        return _parse_items(value)
    text = _find_text(value)
    if text is None:
        return None
    return [text] if text.strip() else []


def join_passages(passages: Iterable[str]) -> str | None:
    """Join passages into a text, with a blank line between them, or return None if there are none."""
    return "\n\n".join(passages) or None


def _parse_items(items: list[Any] | tuple[Any, ...]) -> list[str] | None:
    # `similarity_search_with_score` returns pairs of a document and its score.
    if isinstance(items, tuple) and len(items) == 2 and isinstance(items[1], int | float):
        items = [items[0]]
    passages: list[str] = []
    for item in items:
        texts = parse_passages(item)
        if texts is None:
            return None
        passages += texts
    return passages


def _find_text(value: object) -> str | None:
    if isinstance(value, str):
        return value
    for key in _TEXT_KEYS:
        text = value.get(key) if isinstance(value, Mapping) else getattr(value, key, None)
        if isinstance(text, str):
            # A message's text is a subclass of str.
            return str(text)
    return None
