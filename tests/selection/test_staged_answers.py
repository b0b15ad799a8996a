"""Records with the answers of both stages: what is read, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aspire_guard.errors import DatasetError
from aspire_guard.selection.staged_answers import read_staged

RIGHT: dict[str, Any] = {"selection_score": -0.5, "correct": True}


def _make_line(name: str = "q1", **stages: Any) -> str:
    return json.dumps({"id": name, "stages": stages}) + "\n"


def test_records_are_read_by_stage(tmp_path: Path) -> None:
    """Scores, confidences and labels of both answers, in the order of the file."""
    path = tmp_path / "staged.jsonl"
    first = {"selection_score": -1, "confidence": 0.25, "correct": False, "evaluator": "e1"}
    second = {"selection_score": 0.5, "confidence": 1, "correct": True, "evaluator": "e1"}
    path.write_text(
        _make_line("a", answer=first, fallback=second) + _make_line(answer=second, fallback=first)
    )
    staged = read_staged(str(path))
    assert (staged.ids, staged.source, staged.evaluator) == (("a", "q1"), "staged.jsonl", "e1")
    assert staged.selection_score.tolist() == [[-1.0, 0.5], [0.5, -1.0]]
    assert staged.correct.tolist() == [[False, True], [True, False]]
    assert staged.confidence is not None
    assert staged.confidence.tolist() == [[0.25, 1.0], [1.0, 0.25]]
    fallback = staged.stage("fallback")
    assert fallback.selection_score.tolist() == [0.5, -1.0]
    assert fallback.correct.tolist() == [True, False]


def test_confidences_are_all_there_or_none(tmp_path: Path) -> None:
    """One answer without a confidence leaves the records without."""
    path = tmp_path / "staged.jsonl"
    path.write_text(_make_line(answer=RIGHT | {"confidence": 0.5}, fallback=RIGHT))
    staged = read_staged(path)
    assert (staged.confidence, staged.evaluator) == (None, None)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            _make_line(answer=RIGHT),
            r'"stages" to hold "answer" and "fallback", found no object \'fallback\' in it',
        ),
        ('{"id": "q1"}', '"stages" to hold "answer" and "fallback", found null'),
        (
            _make_line(answer=RIGHT, fallback=RIGHT | {"selection_score": "high"}),
            '"selection_score" of "fallback"',
        ),
        (
            _make_line(answer=RIGHT, fallback=RIGHT | {"selection_score": float("nan")}),
            '"selection_score" of "fallback"',
        ),
        (
            _make_line(answer=RIGHT | {"correct": 1}, fallback=RIGHT),
            '"correct" of "answer" to hold true or false',
        ),
        (
            _make_line(answer=RIGHT | {"confidence": 1.5}, fallback=RIGHT),
            '"confidence" of "answer" to hold a probability, found the number 1.5',
        ),
        (
            _make_line(answer=RIGHT | {"evaluator": "e1"}, fallback=RIGHT | {"evaluator": "e2"}),
            "the evaluator of the first answer, found 'e2'",
        ),
        (2 * _make_line(answer=RIGHT, fallback=RIGHT), "of line 1 again"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    """The file, the line, expected, found and the way out."""
    path = tmp_path / "staged.jsonl"
    path.write_text(line)
    with pytest.raises(DatasetError, match=message) as error:
        read_staged(path)
    assert str(error.value).startswith(f"{path}, line ")
