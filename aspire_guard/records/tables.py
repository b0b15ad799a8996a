"""Tables as records: CSV by the standard library, Parquet by pyarrow, and frames.

A cell of CSV is text, so numbers, labels and lists are read from it by the field that it holds. An empty cell, null or
NaN is a field that is missing.
"""

from __future__ import annotations

import ast
import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from aspire_guard.errors import DatasetError, InputError
from aspire_guard.exchange.passages import parse_passages
from aspire_guard.jsonl import RowNumber, decode_line, make_line_error, shorten

CSV_ENDINGS = (".csv", ".tsv")
PARQUET_ENDINGS = (".parquet", ".pq")

_DELIMITERS = ",;\t"
_LARGEST_CELL = 2**31 - 1
_NUMBERS = ("selection_score", "confidence", "log_likelihood", "p_correct", "cost")
_LABELS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
_LABEL_FIELDS = ("correct", "out_of_domain")
_STRUCTURES = ("sentences", "signals", "stages")


def read_csv_rows(path: Path, lines: Iterable[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows below the header, counted from 1. The delimiter is the comma, semicolon or tab of the header.

    Raises:
        DatasetError: the file is not UTF-8, a column's name is repeated, or a row has another number of cells.
    """
    csv.field_size_limit(_LARGEST_CELL)
    texts = _decode_lines(path, lines)
    header_line = next(texts, "")
    delimiter = max(_DELIMITERS, key=header_line.count)
    header = [name.strip() for name in next(csv.reader([header_line], delimiter=delimiter), [])]
    named = [name for name in header if name]
    if len(set(named)) < len(named):
        repeated = next(name for name in named if named.count(name) > 1)
        raise make_line_error(
            path, 1, "columns that differ", f"{shorten(repeated)} twice", "rename one"
        )
    reader = csv.reader(texts, delimiter=delimiter, strict=True)
    number = 0
    try:
        for cells in reader:
            if not cells:
                continue
            number += 1
            if len(cells) != len(header):
                expected = f"{len(header)} cells, as in the header"
                way_out = "put text with commas or line ends in double quotes"
                raise make_line_error(path, RowNumber(number), expected, str(len(cells)), way_out)
            # A column without a name is the index that pandas writes.
            row = zip(header, cells, strict=True)
            yield RowNumber(number), {name: cell for name, cell in row if name}
    except csv.Error as error:
        way_out = "save the file as CSV again"
        place = RowNumber(number + 1)
        raise make_line_error(path, place, "a row of CSV", str(error), way_out) from error


def read_parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a Parquet file, counted from 1.

    Raises:
        InputError: pyarrow is not installed.
        DatasetError: the file is not Parquet.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(
            f"{path}: expected pyarrow to read Parquet, found that it is not installed; install "
            "aspire-guard[data], or save the file as CSV or JSONL"
        ) from error
    number = 0
    with path.open("rb") as file:
        try:
            for batch in parquet.ParquetFile(file).iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield RowNumber(number), row
        except pyarrow.ArrowException as error:
            reason = " ".join(str(error).split())
            message = f"{path}: expected a Parquet file, found another: {reason}; save it again."
            raise DatasetError(message) from error


def is_frame(value: object) -> bool:
    """Tell whether a value is a frame of pandas or polars, or a table of pyarrow. A dataset is a list of dicts."""
    return any(hasattr(value, name) for name in ("to_pylist", "iter_rows", "iterrows"))


def read_frame_rows(frame: Any) -> Iterator[dict[str, Any]]:
    """Yield the rows of a frame of pandas or polars, or of a table of pyarrow."""
    if hasattr(frame, "to_pylist"):
        yield from frame.to_pylist()
    elif hasattr(frame, "iter_rows"):
        yield from frame.iter_rows(named=True)
    else:
        yield from frame.to_dict(orient="records")


def convert_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with values as JSON would hold them, without the fields that are missing."""
    record = {}
    for name, cell in row.items():
        value = _convert_cell(name, _to_plain(cell))
        # An empty answer is an answer.
        if not _is_missing(value) or (name == "answer" and value == ""):
            record[name] = value
    return record


def _decode_lines(path: Path, lines: Iterable[bytes]) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        yield decode_line(path, number, content)


def _to_plain(value: Any) -> Any:
    """Return NumPy's scalars and arrays as Python's."""
    return value.tolist() if hasattr(value, "tolist") else value


def _is_missing(value: Any) -> bool:
    # NaN, and the missing values of pandas, differ from themselves.
    return value is None or value == "" or bool(isinstance(value, float) and value != value)


def _convert_cell(name: str, value: Any) -> Any:
    if name in _LABEL_FIELDS:
        return _LABELS.get(str(value).strip().lower(), value)
    if not isinstance(value, str):
        return value
    if name in _NUMBERS:
        return _parse_number(value)
    if name in _STRUCTURES:
        return _parse_structure(value)
    if name == "context":
        passages = _parse_structure(value)
        is_list = isinstance(passages, list | dict)
        return passages if is_list and parse_passages(passages) is not None else value
    if name == "answers":
        references = _parse_structure(value)
        return references if isinstance(references, list) else value
    return value


def _parse_number(text: str) -> Any:
    try:
        return float(text) if text.strip() else None
    except ValueError:
        return text


def _parse_structure(text: str) -> Any:
    """Return the list or object that a cell spells in JSON or, as pandas writes it, in Python, or else its text."""
    if not text.lstrip().startswith(("[", "{")):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text
