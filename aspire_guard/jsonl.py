"""Lines of JSON and the plain fields of their objects, with errors that name the line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from aspire_guard.errors import DatasetError, InputError

_MAX_CHARACTERS = 60
_JSON_TYPES = {bool: "the boolean", int: "the number", float: "the number", str: "the string"}


class RecordNumber(int):
    """The number of a record in a file whose records are not lines."""

    unit = "record"


class RowNumber(RecordNumber):
    """The number of a row of a table, below its header."""

    unit = "row"


def check_output_path(output: Path, *inputs: Path) -> None:
    """Make sure that the output file is none of the input files.

    Raises:
        InputError: the output file is also an input file.
    """
    for path in inputs:
        if output.exists() and path.exists() and output.samefile(path):
            raise InputError(
                f"expected another file to write than {path}, which is read; choose another output"
            )


def parse_question(path: Path, number: int, value: dict[str, Any]) -> str:
    """Return the question of an object, which every record must have.

    Raises:
        DatasetError: the question is missing, blank or not text.
    """
    if "question" not in value:
        found = f"only {shorten(', '.join(map(str, value)))}" if value else "no keys"
        way_out = "add it, or rename the key that holds the question"
        raise make_line_error(path, number, 'the key "question"', found, way_out)
    question = parse_text(path, number, "question", value["question"])
    if not question:
        expected = 'a "question" with some text'
        way_out = "fill it in or delete the line"
        raise make_line_error(path, number, expected, "a blank one", way_out)
    return question


def parse_id(path: Path, number: int, value: dict[str, Any]) -> str:
    """Return the id of an object, which is text or a whole number, or `<file>-<line>` if it has no id.

    Raises:
        DatasetError: the id is something else.
    """
    default = f"{path.stem}-{number}"
    name = value.get("id")
    if name is None:
        return default
    # Whole numbers are common ids in public datasets. True is an int to Python, but not an id.
    if isinstance(name, int) and not isinstance(name, bool):
        return str(name)
    return parse_text(path, number, "id", name) or default


def parse_log_likelihood(path: Path, number: int, value: dict[str, Any]) -> float | None:
    """Return the log-likelihood that the answering model reported, in nats, or None if it is missing or null.

    Raises:
        DatasetError: the log-likelihood is not a finite number.
    """
    log_likelihood = value.get("log_likelihood")
    if log_likelihood is None:
        return None
    # A bool is an int to Python. The comparison is false for NaN, and for integers that no float can hold.
    is_number = isinstance(log_likelihood, int | float) and not isinstance(log_likelihood, bool)
    if not is_number or not abs(log_likelihood) <= sys.float_info.max:
        expected = '"log_likelihood" to be a number'
        way_out = "leave it out if it is unknown"
        raise make_line_error(path, number, expected, describe_json(log_likelihood), way_out)
    return float(log_likelihood)


def parse_text(path: Path, number: int, key: str, value: object) -> str:
    """Return the text of a field, without surrounding white space.

    Raises:
        DatasetError: the value is not text, or not valid Unicode.
    """
    if not isinstance(value, str):
        expected = f'"{key}" to hold text'
        way_out = "put it in double quotes"
        raise make_line_error(path, number, expected, describe_json(value), way_out)
    # JSON can spell half of a surrogate pair, which no tokenizer and no file accepts later.
    if any("\ud800" <= character <= "\udfff" for character in value):
        expected = f'"{key}" to hold Unicode text'
        found = f"half a surrogate pair in {shorten(value)}"
        raise make_line_error(path, number, expected, found, "write the character itself")
    return value.strip()


def make_line_error(
    path: Path, number: int, expected: str, found: str, way_out: str
) -> DatasetError:
    """Return the error for a line of a file, or for a record or a row."""
    unit = number.unit if isinstance(number, RecordNumber) else "line"
    return DatasetError(f"{path}, {unit} {number}: expected {expected}, found {found}; {way_out}.")


def describe_json(value: object) -> str:
    """Name a JSON value in JSON's words, e.g. `the number 48`."""
    if value is None:
        return "null"
    if type(value) in _JSON_TYPES:
        return f"{_JSON_TYPES[type(value)]} {shorten(value)}"
    return "a list" if isinstance(value, list) else "an object"


def shorten(value: object) -> str:
    """Return a value as one short line."""
    text = repr(value) if isinstance(value, str) else json.dumps(value)
    if len(text) <= _MAX_CHARACTERS:
        return text
    return f"{text[:_MAX_CHARACTERS]}… ({len(text):,} characters)"


def decode_line(path: Path, number: int, line: bytes) -> str:
    """Return the text of a line in UTF-8.

    Raises:
        DatasetError: the line is not UTF-8.
    """
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"the byte {error.object[error.start]:#04x} at position {error.start + 1}"
        way_out = "save the file as UTF-8"
        raise make_line_error(path, number, "text in UTF-8", found, way_out) from error


def parse_object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """Return the JSON object of a line.

    Raises:
        DatasetError: the line holds something else.
    """
    text = decode_line(path, number, line)
    way_out = "write one record per line, in braces"
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error)
        if isinstance(error, json.JSONDecodeError):
            # The error's own text counts the lines of this string, so it would say "line 1" for every line.
            reason = f"{error.msg} at column {error.colno}"
        found = f"{shorten(text.strip())} ({reason})"
        raise make_line_error(path, number, "a JSON object", found, way_out) from error
    if not isinstance(value, dict):
        found = describe_json(value)
        raise make_line_error(path, number, "a JSON object", found, way_out)
    return value
