"""The fields of a record that take more than JSON to read: the context, the label, the exchange."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aspire_guard.exchange import Exchange
from aspire_guard.exchange.passages import join_passages, parse_passages
from aspire_guard.jsonl import (
    describe_json,
    make_line_error,
    parse_log_likelihood,
    parse_question,
    parse_text,
)


def parse_context(path: Path, number: int, value: Mapping[str, Any]) -> str | None:
    """Return the context of an object as text, or None if it is missing, null or blank.

    It is a text, a passage as a dict with `page_content`, `text` or `content`, or a list of these, alone or in pairs
    with a score. Passages are joined by a blank line.

    Raises:
        DatasetError: the context has another shape.
    """
    context = value.get("context")
    if context is None:
        return None
    if isinstance(context, str):
        return parse_text(path, number, "context", context) or None
    passages = parse_passages(_mark_pairs(context))
    if passages is None:
        expected = '"context" to hold text, or a list of passages'
        found = _describe_passages(context)
        way_out = (
            'write each passage as text, as ["text", score], or as an object with "page_content"'
        )
        raise make_line_error(path, number, expected, found, way_out)
    texts = [parse_text(path, number, "context", passage) for passage in passages]
    return join_passages(texts)


def parse_label(path: Path, number: int, value: Mapping[str, Any]) -> bool:
    """Return the label of an answer, which `correct` holds.

    Raises:
        DatasetError: the label is missing, or neither true nor false.
    """
    correct = value.get("correct")
    if isinstance(correct, bool):
        return correct
    expected = '"correct" to hold true or false'
    found = describe_json(correct) if "correct" in value else "no such key"
    raise make_line_error(path, number, expected, found, "label the answer")


def parse_exchange(path: Path, number: int, value: dict[str, Any]) -> Exchange:
    """Return the question, the context and the answer of an object.

    Raises:
        DatasetError: the question or the answer is missing, or a field is malformed.
    """
    return Exchange(
        question=parse_question(path, number, value),
        context=parse_context(path, number, value),
        answer=parse_text(path, number, "answer", value.get("answer")),
        log_likelihood=parse_log_likelihood(path, number, value),
    )


def _mark_pairs(context: Any) -> Any:
    """Return the context with each pair of a passage and its score as a tuple. JSON has no tuples."""
    if not isinstance(context, list | tuple):
        return context
    if len(context) == 2 and _is_number(context[1]) and not _is_number(context[0]):
        return tuple(context)
    return [_mark_pairs(item) for item in context]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _describe_passages(context: Any) -> str:
    """Name the first thing in a context that is no passage."""
    if not isinstance(context, list | tuple):
        return describe_json(context)
    for item in context:
        if parse_passages(_mark_pairs(item)) is None:
            return f"{describe_json(item)} in the list"
    return "a list"
