"""JSONL files: one JSON object a line, in UTF-8, and errors that name the line."""

from __future__ import annotations

import codecs
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aspire_guard.errors import DatasetError, InputError

_FOUND_LIMIT = 60


def numbered_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each object with its line number, counted from 1, in flat memory; blank lines are passed over.

    Raises:
        DatasetError: while iterating: the file is missing, unreadable or empty, or a line is not a JSON object.
    """
    empty = True
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                if line.strip():
                    empty = False
                    yield number, _object(path, number, line)
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"{path}: expected a JSONL file to read, found: {reason}; check the path and its permissions."
        raise DatasetError(message) from error
    if empty:
        raise DatasetError(
            f'{path}: expected at least one record, found none; add lines like {{"question": …, "answers": […]}}.'
        )


def check_output_path(output: Path, *read: Path) -> None:
    """Make sure that a file to be written is none of those that are read.

    Raises:
        InputError: it is.
    """
    for path in read:
        if output.exists() and path.exists() and output.samefile(path):
            raise InputError(
                f"expected another file to write than {path}, which is read; choose another output"
            )


def question_field(path: Path, number: int, value: dict[str, Any]) -> str:
    """The question of an object, which every record must have.

    Raises:
        DatasetError: it is missing, blank or no text.
    """
    if "question" not in value:
        found = f"only {shorten(', '.join(map(str, value)))}" if value else "no keys"
        raise line_error(
            path,
            number,
            'the key "question"',
            found,
            "add it, or rename the key that holds the question",
        )
    question = text_field(path, number, "question", value["question"])
    if not question:
        raise line_error(
            path,
            number,
            'a "question" with some text',
            "a blank one",
            "fill it in or delete the line",
        )
    return question


def context_field(path: Path, number: int, value: dict[str, Any]) -> str | None:
    """The context of an object; None where it is left out, null or blank."""
    context = value.get("context")
    return None if context is None else text_field(path, number, "context", context) or None


def id_field(path: Path, number: int, value: dict[str, Any]) -> str:
    """The id of an object: text or a whole number; `<file>-<line>` where it has none."""
    found = value.get("id")
    if found is None:
        return f"{path.stem}-{number}"
    # Whole numbers are common ids in public datasets; True is an int to Python but no id to anyone.
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    return text_field(path, number, "id", found) or f"{path.stem}-{number}"


def log_likelihood_field(path: Path, number: int, value: dict[str, Any]) -> float | None:
    """The log-likelihood that the answering model reported, in nats; None where it is left out or null."""
    found = value.get("log_likelihood")
    if found is None:
        return None
    if (
        isinstance(found, bool)
        or not isinstance(found, int | float)
        or not abs(found) <= sys.float_info.max
    ):
        expected, way_out = '"log_likelihood" to be a number', "leave it out where it is unknown"
        raise line_error(path, number, expected, describe_json(found), way_out)
    return float(found)


def text_field(path: Path, number: int, key: str, value: object) -> str:
    """The text of a field, without surrounding white space."""
    if not isinstance(value, str):
        raise line_error(
            path, number, f'"{key}" to hold text', describe_json(value), "put it in double quotes"
        )
    # JSON can spell half of a surrogate pair, which no tokenizer and no file accepts later on.
    if any("\ud800" <= character <= "\udfff" for character in value):
        found = f"half a surrogate pair in {shorten(value)}"
        raise line_error(
            path, number, f'"{key}" to hold Unicode text', found, "write the character itself"
        )
    return value.strip()


def line_error(path: Path, number: int, expected: str, found: str, way_out: str) -> DatasetError:
    """The error about one line."""
    return DatasetError(f"{path}, line {number}: expected {expected}, found {found}; {way_out}.")


def describe_json(value: object) -> str:
    """Name a JSON value in JSON's words, e.g. `the number 48`."""
    if value is None:
        return "null"
    names = {bool: "the boolean", int: "the number", float: "the number", str: "the string"}
    if type(value) in names:
        return f"{names[type(value)]} {shorten(value)}"
    return "a list" if isinstance(value, list) else "an object"


def shorten(value: object) -> str:
    """Return the value as one short line, however long it is."""
    text = repr(value) if isinstance(value, str) else json.dumps(value)
    if len(text) <= _FOUND_LIMIT:
        return text
    return f"{text[:_FOUND_LIMIT]}… ({len(text):,} characters)"


def _object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"the byte {error.object[error.start]:#04x} at position {error.start + 1}"
        raise line_error(path, number, "text in UTF-8", found, "save the file as UTF-8") from error
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        # The error's own text counts lines within this one: it would say "line 1" of every line.
        reason = (
            f"{error.msg} at column {error.colno}"
            if isinstance(error, json.JSONDecodeError)
            else str(error)
        )
        found = f"{shorten(text.strip())} ({reason})"
        raise line_error(
            path, number, "a JSON object", found, "write one record a line, in braces"
        ) from error
    if not isinstance(value, dict):
        raise line_error(
            path,
            number,
            "a JSON object",
            describe_json(value),
            "write one record a line, in braces",
        )
    return value
