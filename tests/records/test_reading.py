"""Records from files of every format, from standard input, and under other names."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest

from aspire_guard.errors import DatasetError, InputError
from aspire_guard.records.columns import Columns
from aspire_guard.records.reading import read_numbered_records

RECORDS = [
    {
        "question": "Who built it?",
        "context": ["A yard.", "In Rye."],
        "answer": 'Ann, "the" one\nof two',
    },
    {"question": "Wo? Köln…", "answer": "1890", "correct": True, "selection_score": -0.25},
    {"question": "When?", "answer": "", "correct": False, "selection_score": 3.0},
]
WriteFile = Callable[[str, str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> WriteFile:
    def write_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


def read(path: Path, columns: str | None = None) -> list[dict[str, Any]]:
    return [record for _, record in read_numbered_records(path, Columns.parse(columns))]


def read_error(path: Path, columns: str | None = None) -> str:
    with pytest.raises(InputError) as caught:
        read(path, columns)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "tsv", "semicolon.csv", "parquet"])
def test_every_format_holds_the_same_records(tmp_path: Path, ending: str) -> None:
    """Quotes, line ends, empty answers, lists, labels, numbers and missing fields survive every format."""
    path = tmp_path / f"answers.{ending}"
    frame = pandas.DataFrame(RECORDS)
    match ending:
        case "jsonl":
            path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
        case "json":
            path.write_text(json.dumps(RECORDS, indent=2))
        case "parquet":
            frame.to_parquet(path)
        case "tsv":
            frame.to_csv(path, sep="\t")
        case _:
            frame.to_csv(path, sep=";" if "semicolon" in ending else ",")
    assert read(path) == RECORDS


def test_a_cell_of_csv_may_hold_json_or_text_with_brackets(write: WriteFile) -> None:
    """A list is read as passages only if it is one."""
    header = "question,context,answer\n"
    rows = ['Who?,"[""One."", ""Two.""]",Ann', 'Who?,"[1] A note.",Ann', 'Who?,"[1, 2]",Ann']
    path = write("answers.csv", "\ufeff" + header + "\n".join(rows))
    contexts = [record["context"] for record in read(path)]
    assert contexts == [["One.", "Two."], "[1] A note.", "[1, 2]"]


def test_a_long_context_fits_a_cell(write: WriteFile) -> None:
    """Python's own limit for a cell is 128 KiB."""
    context = "word " * 40_000
    path = write("answers.csv", f"question,context,answer\nWho?,{context},Ann\n")
    assert read(path)[0]["context"] == context


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (
            'question,answer\nWho?,"Ann"\nWho?,Ann,Bea\n',
            "row 2: expected 2 cells, as in the header, found 3",
        ),
        ("question,answer\nWho?\n", "row 1: expected 2 cells, as in the header, found 1"),
        (
            "question,answer,answer\nWho?,a,b\n",
            "line 1: expected columns that differ, found 'answer' twice",
        ),
        ('question,answer\nWho?,"Ann"x\n', "row 1: expected a row of CSV, found"),
        (b"question,answer\nWho?,\xe4h\n", "line 2: expected text in UTF-8, found the byte 0xe4"),
        ("question,answer\n", "expected at least one record, found none"),
        ("", "expected at least one record, found none"),
    ],
)
def test_a_bad_row_of_csv_is_named(write: WriteFile, content: str | bytes, found: str) -> None:
    """Rows are counted below the header."""
    path = write("answers.csv", content)
    assert found in read_error(path)
    assert read_error(path).startswith(str(path))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ('[{"question": "Who?"}, 3]', "record 2: expected a JSON object, found the number 3"),
        (
            '[\n {"question": "Who?"},\n {"question" "Who?"}\n]',
            "line 3: expected a JSON array, found",
        ),
        ("[]", "expected at least one record, found none"),
        (b'[{"question": "\xff"}]', "line 1: expected text in UTF-8, found the byte 0xff"),
    ],
)
def test_a_bad_record_of_an_array_is_named(
    write: WriteFile, content: str | bytes, found: str
) -> None:
    """A syntax error has a line, and everything else a record."""
    assert found in read_error(write("answers.json", content))


def test_an_array_may_have_any_name_and_lines_too(write: WriteFile) -> None:
    """The first character tells an array from lines."""
    assert read(write("answers.jsonl", '\ufeff\n [{"question": "Who?"}]')) == [{"question": "Who?"}]
    assert read(write("answers.json", '{"question": "Who?"}\n')) == [{"question": "Who?"}]


def test_a_file_that_is_no_parquet_is_one_line(write: WriteFile) -> None:
    """The reason of pyarrow is kept."""
    assert "expected a Parquet file, found another: " in read_error(write("a.parquet", "question"))


def test_parquet_without_pyarrow_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way out is the extra or another format."""
    path = tmp_path / "a.parquet"
    pandas.DataFrame(RECORDS).to_parquet(path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "install aspire-guard[data], or save the file as CSV or JSONL" in read_error(path)


@pytest.mark.parametrize(
    "content",
    [
        '{"question": "Who?"}\n{"question": "Why?"}\n',
        '[{"question": "Who?"}, {"question": "Why?"}]',
        "question\nWho?\nWhy?\n",
    ],
)
def test_standard_input_can_be_read_twice(monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    """Lines, an array and CSV are told apart, and a pipe is kept for a second reading."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    first = next(iter(read_numbered_records(Path("-"))))
    assert first == (1, {"question": "Who?"})
    for _ in range(2):
        assert read(Path("-")) == [{"question": "Who?"}, {"question": "Why?"}]


def test_columns_have_other_names_and_lie_in_objects(write: WriteFile) -> None:
    """A dot leads into an object, or into the JSON of a cell."""
    record = {"query": "Who?", "outputs": {"text": "Ann", "documents": [{"page_content": "A."}]}}
    columns = "question=query,answer=outputs.text,context=outputs.documents"
    expected = {"question": "Who?", "answer": "Ann", "context": [{"page_content": "A."}]}
    [from_json] = read(write("a.jsonl", json.dumps(record)), columns)
    assert expected.items() <= from_json.items()
    path = write("a.csv", "")
    pandas.DataFrame([record | {"outputs": json.dumps(record["outputs"])}]).to_csv(path)
    [from_csv] = read(path, columns)
    assert expected.items() <= from_csv.items()


EXPORTS: dict[str, dict[str, Any]] = {
    "ragas": {"user_input": "Who?", "retrieved_contexts": ["A."], "response": "Ann", "reference": "Bea"},
    "ragas,correct=label": {"question": "Who?", "contexts": ["A."], "answer": "Ann",
                            "ground_truth": "Bea", "label": 1},
    "langsmith": {"inputs.question": "Who?", "outputs.answer": "Ann", "outputs.documents": ["A."],
                  "error": None, "reference.answer": "Bea", "feedback.correctness": 1.0},
    "langsmith,answers=reference_outputs.text": {
        "inputs": {"question": "Who?"}, "outputs": {"output": "Ann", "context": ["A."]},
        "reference_outputs": {"text": "Bea"}, "feedback.correctness": True},
    "langfuse": {"id": "t1", "input": {"query": "Who?"}, "output": {"answer": "Ann"},
                 "metadata": {"context": ["A."]}, "expectedOutput": "Bea", "correctness": 1},
    "langfuse,context=docs": {"input": "Who?", "output": "Ann", "docs": ["A."],
                              "expectedOutput": "Bea", "scores": {"correctness": "True"}},
}  # fmt: skip


@pytest.mark.parametrize("columns", EXPORTS)
@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_exports_of_other_tools_are_presets(tmp_path: Path, columns: str, ending: str) -> None:
    """Old and new names, flat and nested exports give the same fields."""
    export = EXPORTS[columns]
    path = tmp_path / f"export.{ending}"
    if ending == "jsonl":
        path.write_text(json.dumps(export))
    else:
        cells = {}
        for name, value in export.items():
            cells[name] = json.dumps(value) if isinstance(value, dict | list) else value
        pandas.DataFrame([cells]).to_csv(path)
    [record] = read(path, columns)
    expected = {"question": "Who?", "context": ["A."], "answer": "Ann", "answers": "Bea"}
    assert expected.items() <= record.items()
    assert record.get("correct") is (None if columns == "ragas" else True)


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ("question", "found 'question'"),
        ("question=", "found 'question='"),
        ("raga", "found 'raga'"),
        ("anser=response", "found the unknown field 'anser'"),
    ],
)
def test_a_mistake_in_columns_is_named(columns: str, found: str) -> None:
    """The error lists the presets and the fields."""
    with pytest.raises(
        InputError, match="expected presets and pairs like question=query"
    ) as caught:
        Columns.parse(columns)
    assert found in str(caught.value)
    assert "ragas, langsmith, langfuse" in str(caught.value)


def test_a_named_column_that_a_table_lacks_is_an_error(write: WriteFile) -> None:
    """It would otherwise be a missing field of every row."""
    path = write("answers.csv", "query,response\nWho?,Ann\n")
    with pytest.raises(DatasetError) as caught:
        read(path, "question=query,answer=reply")
    assert str(caught.value) == (
        f"{path}, row 1: expected the column \"reply\" for answer, found only 'query, response'; "
        "name another in --columns."
    )
