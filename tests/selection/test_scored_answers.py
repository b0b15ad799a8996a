"""Scored answers: what is read, what is refused, and what is warned of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aspire_guard.errors import DatasetError
from aspire_guard.selection.scored_answers import (
    ScoredAnswers,
    find_warnings,
    read_scored,
    read_selection_scores,
)


def _make_line(name: str, score: float = -0.5, correct: bool = True, **more: Any) -> dict[str, Any]:
    return {"id": name, "selection_score": score, "correct": correct, **more}


def _write(folder: Path, *lines: dict[str, Any] | str, name: str = "scored.jsonl") -> Path:
    path = folder / name
    path.write_text(
        "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    )
    return path


def _answers(n: int = 200, source: str = "scored.jsonl", **changed: Any) -> ScoredAnswers:
    values = {
        "ids": tuple(f"q{i}" for i in range(n)),
        "selection_score": np.linspace(-2, 0, n),
        "correct": np.arange(n) % 3 > 0,
    }
    return ScoredAnswers(source=source, **(values | changed))


def test_lines_become_columns_in_their_order(tmp_path: Path) -> None:
    """Ids (whole numbers and none at all, too), scores, labels, groups, costs and other scores come out as they are."""
    path = _write(
        tmp_path,
        _make_line(
            "a", -0.25, True, group="x", cost=2, log_likelihood=-0.25, p_correct=0.5, confidence=0.9
        ),
        {
            "id": 7,
            "selection_score": 0,
            "correct": False,
            "group": " y ",
            "cost": 0.5,
            "log_likelihood": -1,
        }
        | {"p_correct": None, "note": "ignored"},
        "",
        {"selection_score": -3.5, "correct": True, "group": "x", "cost": 0, "log_likelihood": -2.0},
    )
    scored = read_scored(str(path))
    assert len(scored) == 3
    assert scored.source == "scored.jsonl"
    assert scored.ids == ("a", "7", "scored-4")
    assert scored.selection_score.tolist() == [-0.25, 0.0, -3.5]
    assert scored.correct.tolist() == [True, False, True]
    assert scored.group == ("x", "y", "x")
    assert scored.cost is not None
    assert scored.cost.tolist() == [2.0, 0.5, 0.0]
    assert {name: values.tolist() for name, values in scored.baselines.items()} == {
        "log_likelihood": [-0.25, -1, -2]
    }


def test_what_is_optional_may_be_left_out(tmp_path: Path) -> None:
    """Without groups and costs there are none, and null is as good as nothing."""
    scored = read_scored(_write(tmp_path, _make_line("a", group=None), _make_line("b", cost=None)))
    assert (scored.group, scored.cost, scored.baselines) == (None, None, {})


def _make_sentence(start: Any = 0, end: Any = 4, confidence: Any = 0.5) -> dict[str, Any]:
    return {"start": start, "end": end, "confidence": confidence}


def test_lines_may_tell_of_sentences_signals_and_domain(tmp_path: Path) -> None:
    """Lines with and without them stand in one file. A line that does not tell of its domain counts as usual."""
    sentences = [_make_sentence(), _make_sentence(5, 9, 1)]
    told: dict[str, Any] = {
        "sentences": sentences,
        "signals": {"support": 0.5},
        "out_of_domain": True,
    }
    path = _write(
        tmp_path,
        _make_line("a", answer="Ada. Bob.", **told),
        _make_line("b", sentences=None, signals=None, out_of_domain=None),
        _make_line("c", sentences=[], signals={}, out_of_domain=False),
        _make_line("d"),
    )
    scored = read_scored(path)
    assert scored.out_of_domain is not None
    assert scored.out_of_domain.tolist() == [True, False, False, False]


def test_without_a_word_on_domains_there_are_none(tmp_path: Path) -> None:
    """Answers of an evaluator that knows no domain have no column for it."""
    assert read_scored(_write(tmp_path, _make_line("a"), _make_line("b"))).out_of_domain is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"out_of_domain": 1}, '"out_of_domain" to hold true or false, found the number 1'),
        ({"signals": [0.5]}, '"signals" to hold an object of numbers, found a list'),
        ({"signals": {"lead": "x"}}, "\"lead\" to hold a finite number, found the string 'x'"),
        ({"signals": {"lead": None}}, '"lead" to hold a finite number, found null'),
        ({"sentences": {}}, '"sentences" to hold a list of objects like {"start": 0'),
        ({"sentences": ["Ada."]}, "found the string 'Ada.'"),
        ({"sentences": [{"start": 0, "end": 4}]}, 'found {"start": 0, "end": 4}'),
        ({"sentences": [_make_sentence(True)]}, 'found {"start": true, "end": 4'),
        ({"sentences": [_make_sentence(4, 4)]}, 'found {"start": 4, "end": 4'),
        ({"sentences": [_make_sentence(confidence=1.5)]}, '"confidence": 1.5}'),
        ({"sentences": [_make_sentence(confidence=False)]}, '"confidence": false}'),
        ({"sentences": [_make_sentence(confidence=float("nan"))]}, '"confidence": NaN}'),
        ({"sentences": [_make_sentence(-1)]}, "found the start -1 before the position 0"),
        (
            {"sentences": [_make_sentence(), _make_sentence(3, 6)]},
            '"sentences" in their order, without overlaps, found the start 3 before the position 4',
        ),
        (
            {"sentences": [_make_sentence(0, 5)], "answer": "Ada."},
            '"sentences" within the 4 characters of the answer, found the end 5',
        ),
    ],
)
def test_malformed_sentences_signals_and_domains_are_named(
    fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """The error has the line, what was expected and what was found, on one line."""
    path = _write(tmp_path, _make_line("a"), _make_line("b", **fields))
    with pytest.raises(DatasetError) as error:
        read_scored(path)
    assert str(error.value).startswith(f"{path}, line 2: expected ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            {"id": "b", "correct": True},
            'expected "selection_score" to hold a finite number, found no such key',
        ),
        ('{"id": "b", "selection_score": NaN, "correct": true}', "found the number NaN"),
        ('{"id": "b", "selection_score": 1e999, "correct": true}', "found the number Infinity"),
        (_make_line("b") | {"selection_score": True}, "found the boolean true"),
        (_make_line("b") | {"selection_score": "-0.5"}, "found the string '-0.5'"),
        (_make_line("b") | {"selection_score": 10**400}, "found the number 1000"),
        (
            {"id": "b", "selection_score": -1.0},
            'expected "correct" to hold true or false, found no such key',
        ),
        (
            _make_line("b") | {"correct": 1},
            'expected "correct" to hold true or false, found the number 1',
        ),
        (_make_line("a"), "expected an id of its own, found the id 'a' of line 1 again"),
        (
            _make_line("b", group="x"),
            'expected "group" in all lines or in none, found one, unlike the first line',
        ),
        ("[]", "expected a JSON object, found a list"),
    ],
)
def test_a_bad_line_is_named(line: dict[str, Any] | str, message: str, tmp_path: Path) -> None:
    """The error has the file, the line, what was expected and what was found, on one line."""
    path = _write(tmp_path, _make_line("a"), line)
    with pytest.raises(DatasetError) as error:
        read_scored(path)
    assert str(error.value).startswith(f"{path}, line 2: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            {"group": "x"},
            {},
            'expected "group" in all lines or in none, found none, unlike the first line',
        ),
        (
            {"cost": 1},
            {},
            'expected "cost" in all lines or in none, found none, unlike the first line',
        ),
        ({"group": "x"}, {"group": 3}, 'expected "group" to hold text, found the number 3'),
        ({"cost": 1}, {"cost": -1}, 'expected "cost" of 0 or more, found -1.0'),
        (
            {"cost": 1},
            {"cost": "1"},
            "expected \"cost\" to hold a finite number, found the string '1'",
        ),
    ],
)
def test_groups_and_costs_are_complete_and_sound(
    first: dict[str, Any], second: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """If the first line has one, every line has one."""
    path = _write(tmp_path, _make_line("a", **first), _make_line("b", **second))
    with pytest.raises(DatasetError) as error:
        read_scored(path)
    assert message in str(error.value)


@pytest.mark.parametrize("read", [read_scored, read_selection_scores])
def test_no_file_and_an_empty_one_are_named(read: Any, tmp_path: Path) -> None:
    """There is nothing to calibrate on."""
    with pytest.raises(
        DatasetError, match="expected a file of records to read, found: No such file or directory"
    ):
        read(tmp_path / "scored.jsonl")
    with pytest.raises(DatasetError, match="expected at least one record, found none"):
        read(_write(tmp_path))


def test_scores_are_read_without_labels(tmp_path: Path) -> None:
    """The lines that `score` writes of a day's answers have no labels and may repeat an id."""
    lines = [{"id": "a", "selection_score": score} for score in (-1.5, -0.25, 0)]
    assert read_selection_scores(_write(tmp_path, *lines)).tolist() == [-1.5, -0.25, 0.0]
    with pytest.raises(
        DatasetError, match='line 1: expected "selection_score" to hold a finite number'
    ):
        read_selection_scores(_write(tmp_path, {"id": "a"}))


def test_good_answers_bring_no_warning() -> None:
    """Two hundred right and wrong answers with different scores, of an evaluator trained on something else."""
    assert find_warnings(_answers()) == []
    assert find_warnings(_answers(), {"datasets": ["handbook:train", "squad_train.jsonl"]}) == []


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (_answers(99), "expected 100 labelled answers or more, found 99"),
        (
            _answers(correct=np.ones(200, dtype=bool)),
            "expected right and wrong answers, found only right ones",
        ),
        (
            _answers(correct=np.zeros(200, dtype=bool)),
            "expected right and wrong answers, found only wrong ones",
        ),
        (
            _answers(selection_score=np.full(200, -1.0)),
            "expected scores that differ, found one score for all answers",
        ),
    ],
)
def test_answers_that_tell_little_bring_a_warning(answers: ScoredAnswers, message: str) -> None:
    """Few answers, a single label or a single score: calibration continues, with a warning of one sentence."""
    [warning] = find_warnings(answers)
    assert warning.startswith(message)


@pytest.mark.parametrize(
    ("source", "name", "dataset", "matches"),
    [
        ("scored.jsonl", "squad_train.jsonl/17", "squad_train.jsonl", 1),
        ("scored.jsonl", "squad_train-17", "squad_train.jsonl", 1),
        ("scored.jsonl", "handbook:train/vessels-1", "handbook:train", 1),
        ("squad_train.jsonl", "q", "squad_train.jsonl", 200),
        ("squad_train.scored.jsonl", "q", "squad_train.jsonl", 0),
        ("scored.jsonl", "squad_train-station", "squad_train.jsonl", 0),
        ("scored.jsonl", "my-squad_train-17", "squad_train.jsonl", 0),
    ],
)
def test_answers_that_the_evaluator_was_trained_on_bring_a_warning(
    source: str, name: str, dataset: str, matches: int
) -> None:
    """The id tells (`<dataset>/<id>`, or `<file>-<line>` where a record had none), or the file's name."""
    answers = _answers(source=source, ids=(name, *(f"q{i}" for i in range(199))))
    found = find_warnings(answers, {"datasets": [dataset, dataset]})
    message = (
        f"expected answers that the evaluator was not trained on, found {matches} that seem to come "
        "from its dataset"
    )
    assert [warning.startswith(f"{message} {dataset};") for warning in found] == (
        [True] if matches else []
    )
