"""Correctness by the labels of people, in a JSONL file:

{"id": "q1", "answer": "Harrow & Lund", "correct": true}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from aspire_guard.errors import InputError
from aspire_guard.files import write_text
from aspire_guard.jsonl import (
    make_line_error,
    parse_id,
    parse_text,
    shorten,
)
from aspire_guard.records.fields import parse_label
from aspire_guard.records.reading import read_numbered_records
from aspire_trainers.record import QARecord

_Key = tuple[str, str]  # the record's id, and the answer


class Labels:
    """Looks answers up by the id of their record and their text, without surrounding white space.

    Args:
        path: JSONL with `id`, `answer` and `correct` (true or false). Other keys are ignored. The file
            may be empty at first.

    Raises:
        DatasetError: the file is missing, a line is not a label, or two lines contradict each other.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._labels = _read_labels(self.path)

    def grade(self, answers: Sequence[tuple[QARecord, str]]) -> list[bool]:
        """Return the label of each answer.

        Raises:
            InputError: some answers have no label. They are written to a file next to this one, ready to be labelled.
        """
        keys = [(record.id, answer.strip()) for record, answer in answers]
        missing: dict[_Key, QARecord] = {}
        for key, (record, _) in zip(keys, answers, strict=True):
            if key not in self._labels:
                missing[key] = record
        if missing:
            to_label = self._write_missing(missing)
            raise InputError(
                f"{self.path}: expected a label for each of {len(set(keys))} answers, found none for {len(missing)}; "
                f"fill in those in {to_label} and append them"
            )
        return [self._labels[key] for key in keys]

    def _write_missing(self, missing: Mapping[_Key, QARecord]) -> Path:
        """Write the answers without a label to the file next to this one, and return its path.

        Raises:
            InputError: that file holds labels of people already, which must not be overwritten.
        """
        to_label = self.path.with_suffix(".unlabelled.jsonl")
        if _holds_labels(to_label):
            raise InputError(
                f"{self.path}: expected the labels in {to_label} to be appended here, found answers without one; "
                "append them, and delete that file"
            )
        lines = [_format_line(record, answer) for (_, answer), record in missing.items()]
        write_text(to_label, "".join(lines))
        return to_label


def _holds_labels(path: Path) -> bool:
    if not path.exists() or not path.stat().st_size:
        return False
    return any(value.get("correct") is not None for _, value in read_numbered_records(path))


def _format_line(record: QARecord, answer: str) -> str:
    """Return an answer to be labelled, with the material that a person needs for it."""
    fields = {
        "id": record.id,
        "question": record.question,
        "context": record.context,
        "references": record.references,
        "answer": answer,
        "correct": None,
    }
    return json.dumps(fields, ensure_ascii=False) + "\n"


def _read_labels(path: Path) -> dict[_Key, bool]:
    labels: dict[_Key, bool] = {}
    if path.exists() and not path.stat().st_size:  # nothing is labelled yet
        return labels
    for number, value in read_numbered_records(path):
        record_id = parse_id(path, number, value)
        answer = parse_text(path, number, "answer", value.get("answer"))
        correct = parse_label(path, number, value)
        if labels.setdefault((record_id, answer), correct) != correct:
            found = f"another label of {shorten(answer)} for {shorten(record_id)} before"
            raise make_line_error(
                path, number, "one label for each answer", found, "delete one of the two"
            )
    return labels
