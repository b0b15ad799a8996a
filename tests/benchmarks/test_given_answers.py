"""Labelled answers of language models, and their scores that need no model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from given_answers import (
    GivenAnswer,
    measure_texts,
    measure_word_overlap,
    read_answers,
    sample_groups,
)

from aspire_guard.errors import DatasetError
from aspire_guard.exchange import Exchange

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


def make_answer(number: int, group: str) -> GivenAnswer:
    exchange = Exchange(question="Which?", answer="This.")
    return GivenAnswer("a", str(number), exchange, True, "a-model", group)


@pytest.mark.parametrize(
    ("answer", "overlap"),
    [
        ("The cat sat, THE END.", 0.5),  # the, cat; not sat, end
        ("Cats", 0.0),
        ("the CAT", 1.0),
        ("…", 0.0),
    ],
)
def test_word_overlap_is_the_share_of_different_words_in_the_context(
    answer: str, overlap: float
) -> None:
    """Case, punctuation and repetitions don't count, parts of words don't match, and no words have no overlap."""
    assert measure_word_overlap(answer, "“The cat” came.") == overlap


def test_an_answer_without_a_context_has_no_word_overlap() -> None:
    """Its length counts all its words."""
    without = Exchange(question="Who?", answer="Ada, Ada and Bob")
    assert measure_texts(without) == {"negative_length": -4.0}
    within = without.model_copy(update={"context": "Ada."})
    assert measure_texts(within) == {"negative_length": -4.0, "word_overlap": 1 / 3}


def test_answers_are_read_with_their_labels(tmp_path: Path) -> None:
    """Fields that are not needed may be there, and the context may be null."""
    path = write_lines(tmp_path / "some.jsonl", LINE, {**LINE, "id": "2", "context": None})
    first, second = read_answers(path)
    exchange = Exchange(question="Who keeps the key?", context="Ada keeps it.", answer="Ada.")
    assert first == GivenAnswer("some", "1", exchange, True, "a-model", "key")
    assert (second.key, second.exchange.context) == (("some", "2"), None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"correct": "yes"}, 'line 2: expected "correct" to hold true or false, found the string'),
        ({"group": None}, 'line 2: expected "group" to hold text, found null'),
        ({"id": "1"}, "line 2: expected an id of its own, found the id 1 again"),
    ],
)
def test_a_line_that_can_not_be_used_is_named(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    """A missing label or group, or a repeated id, ends the reading."""
    path = write_lines(tmp_path / "some.jsonl", LINE, {**LINE, "id": "2", **change})
    with pytest.raises(DatasetError, match=message):
        read_answers(path)


def test_whole_groups_are_drawn() -> None:
    """Groups of three are drawn until four answers are there, in their order; another seed draws others."""
    answers = [make_answer(number, f"g{number % 5}") for number in range(15)]
    drawn = sample_groups(answers, 4)
    groups = {answer.group for answer in drawn}
    assert len(groups) == 2
    assert drawn == [answer for answer in answers if answer.group in groups]
    assert sample_groups(answers, 4) == drawn
    assert any(sample_groups(answers, 4, seed=seed) != drawn for seed in range(1, 4))
    assert sample_groups(answers, 15) == sample_groups(answers, None) == answers
