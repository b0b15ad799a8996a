"""Correctness by the labels of people, in a JSONL file:

{"id": "q1", "answer": "Harrow & Lund", "correct": true}
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from aspire_guard.errors import InputError
from aspire_guard.jsonl import (
    describe_json,
    id_field,
    line_error,
    numbered_objects,
    shorten,
    text_field,
)
from aspire_trainers.record import QARecord


class Labels:
    """Looks answers up by the id of their record and their text, without surrounding white space.

    Args:
        path: JSONL with `id`, `answer` and `correct` (true or false); other keys are ignored. An empty file
            will do for a start.

    Raises:
        DatasetError: the file is missing, a line is no label, or two lines contradict each other.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._labels = _read(self.path)

    def grade(self, answers: Sequence[tuple[QARecord, str]]) -> list[bool]:
        """Return the label of each answer.

        Raises:
            InputError: some have none; they stand in a file beside this one, ready to be labelled.
        """
        keys = [(record.id, answer.strip()) for record, answer in answers]
        missing = {
            key: record
            for key, (record, _) in zip(keys, answers, strict=True)
            if key not in self._labels
        }
        if missing:
            to_label = self.path.with_suffix(".unlabelled.jsonl")
            is_filled = to_label.exists() and to_label.stat().st_size
            if is_filled and any(
                value.get("correct") is not None for _, value in numbered_objects(to_label)
            ):
                raise InputError(
                    f"{self.path}: expected the labels in {to_label} to be appended here, found answers without one; "
                    "append them, and delete that file"
                )
            lines = (_line(record, answer) for (_, answer), record in missing.items())
            to_label.write_text("".join(lines), encoding="utf-8")
            raise InputError(
                f"{self.path}: expected a label for each of {len(set(keys))} answers, found none for {len(missing)}; "
                f"fill in those in {to_label} and append them"
            )
        return [self._labels[key] for key in keys]


def _line(record: QARecord, answer: str) -> str:
    """An answer to be labelled, with what a person needs to know."""
    texts = {
        "id": record.id,
        "question": record.question,
        "context": record.context,
        "references": record.references,
    }
    return json.dumps(texts | {"answer": answer, "correct": None}, ensure_ascii=False) + "\n"


def _read(path: Path) -> dict[tuple[str, str], bool]:
    labels: dict[tuple[str, str], bool] = {}
    if path.exists() and not path.stat().st_size:  # nothing is labelled yet
        return labels
    for number, value in numbered_objects(path):
        key = (
            id_field(path, number, value),
            text_field(path, number, "answer", value.get("answer")),
        )
        correct = value.get("correct")
        if not isinstance(correct, bool):
            raise line_error(
                path,
                number,
                '"correct" to be true or false',
                describe_json(correct),
                "label the answer",
            )
        if labels.setdefault(key, correct) != correct:
            found = f"another label of {shorten(key[1])} for {shorten(key[0])} before"
            raise line_error(path, number, "one label an answer", found, "delete one of the two")
    return labels
