"""Datasets of QA records: the built-in handbook, and JSONL files.

A file is JSONL in UTF-8 with one record per line:

    {"question": "Which yard built MV Petrel?", "context": "…", "answers": ["Harrow & Lund"]}

`answers` are the references. `context` and `id` may be left out. A single reference may be a plain string, and `[]`
marks a question that the context does not answer. All other keys are ignored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aspire_guard.errors import DatasetError
from aspire_guard.jsonl import (
    describe_json,
    make_line_error,
    parse_id,
    parse_question,
    parse_text,
    shorten,
)
from aspire_guard.records.columns import NO_COLUMNS, Columns
from aspire_guard.records.fields import parse_context
from aspire_guard.records.reading import read_numbered_records
from aspire_trainers.data.handbook import SPLITS, load_questions
from aspire_trainers.record import QARecord

BUILTIN_DATASETS = tuple(f"handbook:{split}" for split in SPLITS)


def load_dataset(name_or_path: str | Path, columns: Columns = NO_COLUMNS) -> list[QARecord]:
    """Return the records of a built-in dataset (`handbook:train`, …) or of a JSONL file.

    Raises:
        DatasetError: the name is unknown, or the file is not a dataset (see `read_records`).
    """
    name = str(name_or_path)
    if not name.startswith("handbook:"):
        return read_records(name_or_path, columns)
    if name not in BUILTIN_DATASETS:
        raise DatasetError(
            f"expected one of {', '.join(BUILTIN_DATASETS)}, found {shorten(name)}; use one of these names."
        )
    return load_questions(name.removeprefix("handbook:"))


def read_records(path: str | Path, columns: Columns = NO_COLUMNS) -> list[QARecord]:
    """Return all records of a JSONL file, in its order.

    Raises:
        DatasetError: the file is missing, unreadable or empty, a line is not a record, or two records share an id.
    """
    path = Path(path)
    first_lines: dict[str, int] = {}
    records = []
    for number, value in read_numbered_records(path, columns):
        record = _parse_record(path, number, value)
        if record.id in first_lines:
            raise make_line_error(
                path,
                number,
                "an id of its own",
                f"the id {shorten(record.id)} of line {first_lines[record.id]} again",
                'rename one of the two, or leave "id" out of both',
            )
        first_lines[record.id] = number
        records.append(record)
    return records


def _parse_record(path: Path, number: int, value: dict[str, Any]) -> QARecord:
    return QARecord(
        id=parse_id(path, number, value),
        question=parse_question(path, number, value),
        context=parse_context(path, number, value),
        references=references_field(path, number, value),
    )


def references_field(path: Path, number: int, record: dict[str, Any]) -> tuple[str, ...]:
    """Return the references of an object without blank ones: a question with only blank references has no answer.

    Raises:
        DatasetError: the references are missing, or are not text.
    """
    value = record.get("answers")
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        found = "no such key, or null" if value is None else describe_json(value)
        way_out = "write [] for a question that the context does not answer"
        raise make_line_error(
            path, number, '"answers" to be a string or a list of strings', found, way_out
        )
    texts = (parse_text(path, number, "answers", item) for item in value)
    return tuple(text for text in texts if text)
