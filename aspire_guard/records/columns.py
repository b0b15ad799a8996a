"""The columns of other tools' files: which of them holds each field of a record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aspire_guard.errors import InputError
from aspire_guard.jsonl import make_line_error, shorten

# The first column that a record has is the one that counts.
PRESETS: Mapping[str, Mapping[str, Sequence[str]]] = {
    # `EvaluationDataset.to_jsonl`, `to_csv` and `to_pandas`, and the names before RAGAS 0.2.
    "ragas": {
        "question": ("user_input", "question"),
        "answer": ("response", "answer"),
        "context": ("retrieved_contexts", "contexts"),
        "answers": ("reference", "ground_truth", "ground_truths"),
    },
    # `ExperimentResults.to_pandas`, and runs with nested inputs and outputs.
    "langsmith": {
        "question": ("inputs.question", "inputs.query", "inputs.input"),
        "answer": ("outputs.answer", "outputs.response", "outputs.output"),
        "context": ("outputs.context", "outputs.documents", "outputs.contexts", "inputs.context"),
        "answers": ("reference.answer", "reference.output", "reference_outputs.answer"),
        "correct": ("feedback.correctness", "feedback.correct"),
    },
    # Traces and observations, with the scores as columns or in an object.
    "langfuse": {
        "question": ("input.question", "input.query", "input.input", "input"),
        "answer": ("output.answer", "output.response", "output.output", "output"),
        "context": ("output.context", "output.documents", "input.context", "metadata.context"),
        "answers": ("expectedOutput.answer", "expectedOutput", "expected_output"),
        "correct": ("correctness", "scores.correctness", "correct"),
    },
}
# The fields that commands read, for the error about a misspelled one.
_FIELDS = (
    *("id", "question", "question_id", "context", "answer", "answers", "correct", "group", "cost"),
    *("model", "chain", "log_likelihood", "p_correct", "selection_score", "confidence"),
    *("evaluator", "sentences", "signals", "out_of_domain", "stages"),
)


@dataclass(frozen=True)
class Columns:
    """The columns that hold the fields of a record.

    Attributes:
        text: the mapping as it was written, or "" if all fields have their own names.
        sources: for each field the columns that may hold it, the first one first. A dot leads into an object.
        named: the fields whose column the user named. A table must have these columns.
    """

    text: str = ""
    sources: Mapping[str, Sequence[str]] = field(default_factory=dict)
    named: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str | None) -> Columns:
        """Read a mapping such as `question=query,answer=response`, `ragas` or `langsmith,correct=feedback.right`.

        Raises:
            InputError: a part is neither a preset nor `field=column`, or names an unknown field.
        """
        if text is None:
            return NO_COLUMNS
        sources: dict[str, Sequence[str]] = {}
        named: set[str] = set()
        for part in text.split(","):
            name, equals, column = (piece.strip() for piece in part.partition("="))
            if not equals and name in PRESETS:
                sources |= PRESETS[name]
            elif name in _FIELDS and column:
                sources[name] = (column,)
                named.add(name)
            else:
                raise _make_error(part.strip())
        return cls(text, sources, frozenset(named))

    def rename(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the record with each field under its own name. Fields without a column stay as they are."""
        renamed = dict(record)
        for name, candidates in self.sources.items():
            for column in candidates:
                value = _find_value(record, column)
                if value is not None:
                    renamed[name] = value
                    break
        return renamed

    def check_row(self, path: Path, number: int, row: Mapping[str, Any]) -> None:
        """Make sure that a table has the columns that the user named. All its rows have the same columns.

        Raises:
            DatasetError: a column is missing.
        """
        for name in sorted(self.named):
            column = self.sources[name][0]
            if column not in row and column.split(".")[0] not in row:
                expected = f'the column "{column}" for {name}'
                found = f"only {shorten(', '.join(map(str, row)))}"
                way_out = "name another in --columns"
                raise make_line_error(path, number, expected, found, way_out)


NO_COLUMNS = Columns()


def _find_value(record: Mapping[str, Any], column: str) -> Any:
    """Return the value of a column, or None if there is none. A dot leads into an object, or into a cell of JSON."""
    if column in record:
        return record[column]
    name, dot, rest = column.partition(".")
    value = record.get(name)
    if isinstance(value, str) and dot and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if not dot or not isinstance(value, Mapping):
        return None
    return _find_value(value, rest)


def _make_error(part: str) -> InputError:
    presets = ", ".join(PRESETS)
    name, equals, _ = part.partition("=")
    way_out = f"the presets are {presets}, and the fields {', '.join(_FIELDS)}"
    found = f"the unknown field {name.strip()!r}" if equals and part[-1] != "=" else repr(part)
    return InputError(
        f"columns: expected presets and pairs like question=query,answer=response, found {found}; {way_out}"
    )
