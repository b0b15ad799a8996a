"""Rated answers: their labels, their groups, and lines that can't be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aspire_guard.errors import DatasetError
from aspire_guard.exchange import Exchange
from aspire_trainers.data.rated_answers import RatedAnswer, read_rated_answers

LINE: dict[str, Any] = {
    "id": "1",
    "question": "Who keeps the key?",
    "context": "Ada keeps it.",
    "answer": " Ada.",
    "correct": True,
    "model": "a-model",
    "task": "RAG",
    "group": "key",
    "references": ["Ada"],
}


def write_lines(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def test_answers_are_read_with_their_labels(tmp_path: Path) -> None:
    """Fields that are not needed may be there, and the context may be null."""
    path = write_lines(tmp_path / "some.jsonl", LINE, {**LINE, "id": "2", "context": None})
    first, second = read_rated_answers(path)
    exchange = Exchange(question="Who keeps the key?", context="Ada keeps it.", answer="Ada.")
    assert first == RatedAnswer("some", "1", exchange, True, "a-model", "key")
    assert (second.key, second.exchange.context) == (("some", "2"), None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"correct": "yes"}, 'line 2: expected "correct" to hold true or false, found the string'),
        ({"group": 3}, 'line 2: expected "group" to hold text, found the number 3'),
        ({"id": "1"}, "line 2: expected an id of its own, found the id 1 again"),
    ],
)
def test_a_line_that_can_not_be_used_is_named(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    """A missing label, a group that is not text, or a repeated id ends the reading."""
    path = write_lines(tmp_path / "some.jsonl", LINE, {**LINE, "id": "2", **change})
    with pytest.raises(DatasetError, match=message):
        read_rated_answers(path)


def test_answers_to_one_question_are_a_group_unless_the_line_names_another(tmp_path: Path) -> None:
    """The model and the group may be left out. Another context is another group."""
    line = {key: LINE[key] for key in ("question", "context", "answer", "correct")}
    path = write_lines(tmp_path / "some.jsonl", line, line, {**line, "context": None})
    first, second, third = read_rated_answers(path)
    assert first.group == second.group != third.group
    assert first.model == ""
