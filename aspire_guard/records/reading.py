"""The reader of every command: numbered records from a file or from standard input.

The format follows from the file's name: `.csv`, `.tsv`, `.parquet`, and JSON for every other name. JSON is JSONL, or an
array if the first character is a bracket. Standard input, written `-`, is JSON or CSV.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aspire_guard.errors import DatasetError
from aspire_guard.jsonl import (
    RecordNumber,
    decode_line,
    describe_json,
    make_line_error,
    parse_object,
    shorten,
)
from aspire_guard.records.columns import NO_COLUMNS, Columns
from aspire_guard.records.standard_input import STANDARD_INPUT, open_standard_input
from aspire_guard.records.tables import (
    CSV_ENDINGS,
    PARQUET_ENDINGS,
    convert_row,
    read_csv_rows,
    read_parquet_rows,
)

NumberedRecord = tuple[int, dict[str, Any]]


def read_numbered_records(
    path: Path, columns: Columns = NO_COLUMNS
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each record with its number, counted from 1, under the names that aspire-guard uses.

    In JSONL the number is that of the line. JSONL and tables are read as they are used, so memory use does not grow
    with their length. A JSON array is read whole.

    Args:
        path: the file, or `-` for standard input.
        columns: the columns that hold each field, if they have other names.

    Raises:
        DatasetError: while iterating: the file is missing, unreadable, empty or malformed.
        InputError: the file is Parquet, and pyarrow is not installed.
    """
    is_empty = True
    try:
        for number, record in _read_by_format(resolve_standard_input(path), columns):
            is_empty = False
            yield number, record
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"{path}: expected a file of records to read, found: {reason}; check the path and its permissions."
        raise DatasetError(message) from error
    if is_empty:
        example = '{"question": …, "answers": […]}'
        raise DatasetError(
            f"{path}: expected at least one record, found none; add lines like {example}."
        )


def resolve_standard_input(path: Path) -> Path:
    """Return the path that stands for standard input if the path is `-`, and other paths as they are."""
    return STANDARD_INPUT if str(path) == "-" else path


def _read_by_format(path: Path, columns: Columns) -> Iterator[NumberedRecord]:
    ending = path.suffix.lower()
    if ending in PARQUET_ENDINGS:
        yield from _convert_rows(path, read_parquet_rows(path), columns)
        return
    opened = open_standard_input() if path == STANDARD_INPUT else path.open("rb")
    with opened as lines:
        if ending in CSV_ENDINGS:
            yield from _convert_rows(path, read_csv_rows(path, lines), columns)
            return
        first_lines, start = _find_start(lines)
        all_lines = _chain_lines(first_lines, lines)
        if start == b"[":
            values = _read_array(path, b"".join(all_lines))
        elif path == STANDARD_INPUT and start not in (b"{", b""):
            yield from _convert_rows(path, read_csv_rows(path, all_lines), columns)
            return
        else:
            values = _read_lines(path, all_lines)
        for number, value in values:
            # Other tools write labels as numbers.
            yield number, convert_row(columns.rename(value)) if columns.sources else value


def _convert_rows(
    path: Path, rows: Iterator[NumberedRecord], columns: Columns
) -> Iterator[NumberedRecord]:
    is_first = True
    for number, row in rows:
        if is_first:
            columns.check_row(path, number, row)
            is_first = False
        yield number, convert_row(columns.rename(row))


def _find_start(lines: Iterator[bytes]) -> tuple[list[bytes], bytes]:
    """Return the lines up to the first that is not blank, and the first character of that line."""
    first_lines: list[bytes] = []
    for line in lines:
        first_lines.append(line)
        text = line.removeprefix(b"\xef\xbb\xbf").strip()
        if text:
            return first_lines, text[:1]
    return first_lines, b""


def _chain_lines(first_lines: list[bytes], lines: Iterator[bytes]) -> Iterator[bytes]:
    for number, line in enumerate(first_lines):
        yield line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line
    yield from lines


def _read_lines(path: Path, lines: Iterator[bytes]) -> Iterator[NumberedRecord]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, parse_object(path, number, line)


def _read_array(path: Path, content: bytes) -> Iterator[NumberedRecord]:
    text = decode_line(path, 1, content)
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        number, reason = 1, str(error)
        if isinstance(error, json.JSONDecodeError):
            number, reason = error.lineno, f"{error.msg} at column {error.colno}"
        line = text.splitlines()[number - 1] if text else ""
        found = f"{shorten(line.strip())} ({reason})"
        way_out = "write an array of objects"
        raise make_line_error(path, number, "a JSON array", found, way_out) from error
    for number, value in enumerate(values, start=1):
        place = RecordNumber(number)
        if not isinstance(value, dict):
            way_out = "write one object for each record"
            raise make_line_error(path, place, "a JSON object", describe_json(value), way_out)
        yield place, value
