"""Reading QA records: what a dataset may look like, and the errors about other files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from aspire_guard.errors import DatasetError
from aspire_trainers.data.dataset import BUILTIN_DATASETS, load_dataset, read_records
from aspire_trainers.record import QARecord

GOOD_LINE = '{"question": "Which yard built MV Petrel?", "answers": ["Harrow & Lund"]}'

WriteFile = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> WriteFile:
    """Write lines to `data.jsonl` and return its path."""

    def write_lines(*lines: str | bytes) -> Path:
        path = tmp_path / "data.jsonl"
        path.write_bytes(
            b"\n".join(line.encode() if isinstance(line, str) else line for line in lines)
        )
        return path

    return write_lines


def read_message(path: Path) -> str:
    """Return the one-line message of `read_records` about a file, after the file's name."""
    with pytest.raises(DatasetError) as caught:
        read_records(path)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(str(path))


def test_a_line_becomes_a_record(write: WriteFile) -> None:
    """Every key of a line ends up in its record, stripped of space around it."""
    path = write(
        '{"id": "q-1", "question": " Wo? ", "context": "In Köln.", "answers": ["Köln", " in Köln "]}'
    )
    assert read_records(path) == [QARecord("q-1", "Wo?", "In Köln.", ("Köln", "in Köln"))]


def test_a_record_without_an_id_is_named_by_file_and_line(write: WriteFile) -> None:
    """Blank lines are skipped, yet counted in the default id."""
    assert [record.id for record in read_records(write("", GOOD_LINE, "  ", GOOD_LINE))] == [
        "data-2",
        "data-4",
    ]


@pytest.mark.parametrize("context", ["", ', "context": null', ', "context": "  "'])
def test_a_question_may_have_no_context(write: WriteFile, context: str) -> None:
    """A missing, null or blank context is a closed-book question."""
    (record,) = read_records(write('{"question": "Who?", "answers": "Tern"' + context + "}"))
    assert record.context is None


@pytest.mark.parametrize(
    ("answers", "references"),
    [
        ('"Tern"', ("Tern",)),
        ('["Tern", "the Tern"]', ("Tern", "the Tern")),
        ("[]", ()),
        ('["", " "]', ()),
    ],
)
def test_answers_are_one_string_or_a_list(
    write: WriteFile, answers: str, references: tuple[str, ...]
) -> None:
    """Blank references are dropped, and a question without any is not answerable."""
    (record,) = read_records(write(f'{{"question": "Who?", "answers": {answers}}}'))
    assert record.references == references
    assert record.answerable == bool(references)


def test_a_whole_number_serves_as_id(write: WriteFile) -> None:
    """Ids that are numbers, as in many public datasets, become text."""
    (record,) = read_records(write('{"id": 7, "question": "Who?", "answers": []}'))
    assert record.id == "7"


def test_unknown_keys_are_ignored(write: WriteFile) -> None:
    """A dataset may carry columns of its own."""
    (record,) = read_records(write('{"question": "Who?", "answers": [], "source": {"page": 3}}'))
    assert record == QARecord("data-1", "Who?")


def test_a_byte_order_mark_is_tolerated(write: WriteFile) -> None:
    """Files saved by a spreadsheet begin with a byte order mark and end lines with CR LF."""
    assert len(read_records(write(b"\xef\xbb\xbf" + GOOD_LINE.encode() + b"\r", GOOD_LINE))) == 2


def test_a_record_cannot_be_changed() -> None:
    """Records are frozen, so stages can share them."""
    with pytest.raises(AttributeError):
        QARecord("q", "Who?").question = "What?"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "{question: 1}",
            (
                "expected a JSON object, found '{question: 1}' (Expecting property name enclosed in double quotes at "
                "column 2); write one record per line, in braces."
            ),
        ),
        ('["Who?"]', "expected a JSON object, found a list; write one record per line, in braces."),
        (
            '{"query": "Who?", "answers": []}',
            (
                "expected the key \"question\", found only 'query, answers'; add it, or rename the key that holds the "
                "question."
            ),
        ),
        (
            "{}",
            'expected the key "question", found no keys; add it, or rename the key that holds the question.',
        ),
        (
            '{"question": " ", "answers": []}',
            'expected a "question" with some text, found a blank one; fill it in or delete the line.',
        ),
        (
            '{"question": null, "answers": []}',
            'expected "question" to hold text, found null; put it in double quotes.',
        ),
        (
            '{"question": "Who?", "context": ["a", "b", 1], "answers": []}',
            (
                'expected "context" to hold text, or a list of passages, found the number 1 in the list; write each '
                'passage as text, as ["text", score], or as an object with "page_content".'
            ),
        ),
        (
            '{"question": "Who?"}',
            (
                'expected "answers" to be a string or a list of strings, found no such key, or null; '
                "write [] for a question that the context does not answer."
            ),
        ),
        (
            '{"question": "Who?", "answers": {"text": []}}',
            (
                'expected "answers" to be a string or a list of strings, found an object; '
                "write [] for a question that the context does not answer."
            ),
        ),
        (
            '{"question": "Who?", "answers": ["a", 2]}',
            'expected "answers" to hold text, found the number 2; put it in double quotes.',
        ),
        (
            '{"id": true, "question": "Who?", "answers": []}',
            'expected "id" to hold text, found the boolean true; put it in double quotes.',
        ),
        (
            '{"question": "Who\\ud800?", "answers": []}',
            (
                "expected \"question\" to hold Unicode text, found half a surrogate pair in 'Who\\ud800?'; "
                "write the character itself."
            ),
        ),
        (
            b'{"question": "Wo in K\xf6ln?", "answers": []}',
            "expected text in UTF-8, found the byte 0xf6 at position 22; save the file as UTF-8.",
        ),
    ],
)
def test_a_bad_line_is_named_with_its_reason(
    write: WriteFile, line: str | bytes, message: str
) -> None:
    """The error names file and line, what was expected, what was found, and the way out."""
    assert read_message(write(GOOD_LINE, "", line, GOOD_LINE)) == f", line 3: {message}"


def test_two_records_cannot_share_an_id(write: WriteFile) -> None:
    """The error names both lines."""
    line = '{"id": "q", "question": "Who?", "answers": []}'
    assert read_message(write(line, GOOD_LINE, line)) == (
        ", line 3: expected an id of its own, found the id 'q' of line 1 again; "
        'rename one of the two, or leave "id" out of both.'
    )


@pytest.mark.parametrize(
    "line", ["x" * 1_000_000, json.dumps({"id": 1, "question": ["x" * 1_000_000]}), "[" * 100_000]
)
def test_a_huge_line_is_not_echoed(write: WriteFile, line: str) -> None:
    """The message shortens the line to a readable length."""
    assert len(read_message(write(line))) < 250


@pytest.mark.parametrize("lines", [(), ("\ufeff", "", "  ")])
def test_an_empty_dataset_is_an_error(write: WriteFile, lines: tuple[str, ...]) -> None:
    """A file of blank lines holds no record."""
    message = ': expected at least one record, found none; add lines like {"question": …, "answers": […]}.'
    assert read_message(write(*lines)) == message


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """The message names the path and the reason."""
    message = (
        ": expected a file of records to read, found: No such file or directory; check the path and its "
        "permissions."
    )
    assert read_message(tmp_path / "gone.jsonl") == message


def test_a_folder_is_not_a_dataset(tmp_path: Path) -> None:
    """A path that cannot be opened as a file gives the same kind of error."""
    assert "Is a directory" in read_message(tmp_path)


def test_a_dataset_is_loaded_by_path_or_by_name(write: WriteFile) -> None:
    """A path gives the file's records, a built-in name the handbook's."""
    assert load_dataset(write(GOOD_LINE)) == load_dataset(str(write(GOOD_LINE)))
    assert [len(load_dataset(name)) for name in BUILTIN_DATASETS] == [288, 96, 128]


def test_an_unknown_split_of_the_handbook_is_an_error() -> None:
    """The message lists the known names."""
    with pytest.raises(DatasetError) as caught:
        load_dataset("handbook:dev")
    assert str(caught.value) == (
        "expected one of handbook:train, handbook:calibration, handbook:test, found 'handbook:dev'; "
        "use one of these names."
    )
