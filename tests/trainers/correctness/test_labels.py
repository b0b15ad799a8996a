"""Correctness by people's labels: they are found by id and text, and missing labels are listed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aspire_guard.errors import DatasetError, InputError
from aspire_trainers.correctness import Labels
from aspire_trainers.record import QARecord

LABELS = """\
{"id": "q1", "answer": "Harrow & Lund", "correct": true, "by": "Ada"}
{"id": "q1", "answer": "Cobbold", "correct": false}

{"id": 2, "answer": "", "correct": true}
"""
Q1 = QARecord(
    "q1", "Which yard built MV Petrel?", "MV Petrel was launched in 1998.", ("Harrow & Lund",)
)
Q2 = QARecord("2", "Who launched her?")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "labels.jsonl"
    path.write_text(LABELS, encoding="utf-8")
    return path


def test_an_answer_has_the_label_of_its_record_and_text(file: Path) -> None:
    """The references play no part, and neither does white space around an answer."""
    answers = [(Q1, "Cobbold"), (Q1, " Harrow & Lund\n"), (Q2, ""), (Q1, "Cobbold")]
    assert Labels(file).grade(answers) == [False, True, True, False]


def test_missing_labels_are_counted_and_listed_next_to_the_file(file: Path) -> None:
    """Each missing answer is listed once. Filled in and appended, the list makes the file complete."""
    answers = [(Q1, "Cobbold"), (Q1, "harrow"), (Q1, "harrow"), (Q2, "Eve")]
    with pytest.raises(InputError) as caught:
        Labels(file).grade(answers)
    to_label = file.with_name("labels.unlabelled.jsonl")
    assert str(caught.value) == (
        f"{file}: expected a label for each of 3 answers, found none for 2; fill in those in {to_label} and append them"
    )
    rows = [json.loads(line) for line in to_label.read_text("utf-8").splitlines()]
    assert rows[0] == {
        "id": "q1",
        "question": "Which yard built MV Petrel?",
        "context": "MV Petrel was launched in 1998.",
        "references": ["Harrow & Lund"],
        "answer": "harrow",
        "correct": None,
    }
    assert [(row["id"], row["answer"]) for row in rows] == [("q1", "harrow"), ("2", "Eve")]
    filled_in = "".join(json.dumps(row | {"correct": True}) + "\n" for row in rows)
    to_label.write_text(filled_in, encoding="utf-8")
    with pytest.raises(
        InputError, match=r"expected the labels in .*unlabelled\.jsonl to be appended here"
    ):
        Labels(file).grade(answers)
    assert to_label.read_text("utf-8") == filled_in
    to_label.write_text("", encoding="utf-8")  # cut and pasted
    with pytest.raises(InputError, match="found none for 2; fill in those in"):
        Labels(file).grade(answers)
    assert [json.loads(line) for line in to_label.read_text("utf-8").splitlines()] == rows
    with file.open("a", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row | {"correct": row["id"] == "q1"}) + "\n" for row in rows)
    assert Labels(file).grade(answers) == [False, True, True, False]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (
            '{"id": "q3", "answer": "x", "correct": null}',
            '"correct" to hold true or false, found null; label the answer',
        ),
        (
            '{"id": "q3", "answer": "x", "correct": 1}',
            '"correct" to hold true or false, found the number 1',
        ),
        ('{"id": "q3", "correct": true}', '"answer" to hold text, found null'),
        (
            '{"id": "q1", "answer": "Cobbold", "correct": true}',
            "one label for each answer, found another label of 'Cobbold'",
        ),
        ("q3 is right", "a JSON object"),
    ],
)
def test_a_bad_line_is_named(file: Path, line: str, found: str) -> None:
    """The error holds its number and its mistake."""
    with file.open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")
    with pytest.raises(DatasetError) as caught:
        Labels(file)
    assert f"labels.jsonl, line 5: expected {found}" in str(caught.value)


def test_an_empty_file_is_a_start(tmp_path: Path) -> None:
    """All answers are listed in a file next to it, to be labelled."""
    file = tmp_path / "labels.jsonl"
    file.touch()
    with pytest.raises(InputError, match="found none for 1; fill in those"):
        Labels(file).grade([(QARecord("q1", "Who?", None, ("Ada",)), "Ada")])
    assert json.loads((tmp_path / "labels.unlabelled.jsonl").read_text())["answer"] == "Ada"


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """It is raised before anything is answered."""
    with pytest.raises(DatasetError, match="expected a file of records to read"):
        Labels(tmp_path / "labels.jsonl")
