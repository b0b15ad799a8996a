"""The command `make-answers`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aspire_guard.cli.options import ColumnsOption
from aspire_guard.errors import InputError

if TYPE_CHECKING:
    from aspire_trainers.data.styled_answers.make import StyledAnswer
    from aspire_trainers.record import QARecord


def make_answers(
    data: Annotated[list[str], typer.Argument(help="QA records, or handbook:train.")],
    output: Annotated[Path, typer.Option(help="The JSONL to write.")],
    held_out_output: Annotated[
        Path | None,
        typer.Option(help="JSONL for the held-out answers. By default they are left out."),
    ] = None,
    per_record: Annotated[
        int, typer.Option(min=1, help="Pairs of a right and a wrong answer to a record, at most.")
    ] = 2,
    further_passages: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="The share of the passages that stand among up to three others."
        ),
    ] = 0.0,
    hold_out_styles: Annotated[
        str, typer.Option(help="Styles to leave out, with commas between them.")
    ] = "",
    hold_out_errors: Annotated[
        str, typer.Option(help="Kinds of errors to leave out, with commas between them.")
    ] = "",
    seed: Annotated[int, typer.Option(help="The seed of every random choice.")] = 0,
    columns: ColumnsOption = None,
) -> None:
    """Make training answers in the style of large language models from QA records.

    Example: aspire-guard make-answers qa.jsonl --output answers.jsonl --hold-out-styles table

    Each right answer has a wrong twin in the same style that differs in one fact: a name, a number, a date, a denial, a
    sentence from elsewhere. Every sentence is labelled. A record that allows no good answer is skipped.
    """
    from aspire_guard.files import write_text
    from aspire_guard.jsonl import check_output_path
    from aspire_guard.records.columns import Columns
    from aspire_trainers.data import styled_answers
    from aspire_trainers.data.dataset import load_dataset

    for path in (output, *([held_out_output] if held_out_output else [])):
        check_output_path(path, *map(Path, data))
    mapping = Columns.parse(columns)
    records = [record for name in data for record in load_dataset(name, mapping)]
    _check_ids(records)
    made = styled_answers.make_answers(
        records,
        seed=seed,
        per_record=per_record,
        further_passages=further_passages,
        hold_out_styles=_parse_names(hold_out_styles, "--hold-out-styles", styled_answers.STYLES),
        hold_out_errors=_parse_names(
            hold_out_errors, "--hold-out-errors", styled_answers.ERROR_KINDS
        ),
    )
    if not made.answers and not made.held_out:
        raise InputError(
            "expected records with a context that holds a reference, found no such record; add the passages"
        )
    write_text(output, _to_lines(made.answers))
    typer.echo(
        f"{output}: {len(made.answers):,} answers, half of them right, to {len(records):,} records "
        f"({len(made.skipped):,} skipped)"
    )
    if held_out_output:
        write_text(held_out_output, _to_lines(made.held_out))
        typer.echo(f"{held_out_output}: {len(made.held_out):,} held-out answers")


def _check_ids(records: Sequence[QARecord]) -> None:
    """Make sure that no two datasets share an id, which the ids of the answers are made from."""
    counts = Counter(record.id for record in records)
    repeated = [name for name, count in counts.items() if count > 1]
    if repeated:
        raise InputError(
            f"expected an id of its own for each record, found {repeated[0]!r} in two datasets; rename one of them"
        )


def _to_lines(answers: Sequence[StyledAnswer]) -> str:
    return "".join(answer.to_line() for answer in answers)


def _parse_names(text: str, option: str, known: Iterable[str]) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(
            f"expected {option} to name some of {', '.join(known)}, found {', '.join(unknown)}; use these names"
        )
    return names
