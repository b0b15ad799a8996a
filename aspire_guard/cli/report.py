"""The command `report`."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aspire_guard.cli.calibration_checks import print_warnings
from aspire_guard.cli.options import ColumnsOption
from aspire_guard.jsonl import check_output_path

if TYPE_CHECKING:
    from aspire_guard.selection.calibration import Calibration
    from aspire_guard.selection.scored_answers import ScoredAnswers


def report(
    scored: Annotated[
        Path,
        typer.Argument(
            help="Answers as `score` writes them, with `correct` in every line; - for standard input."
        ),
    ],
    output: Annotated[Path, typer.Option(help="The HTML file to write.")],
    test: Annotated[
        Path | None,
        typer.Option(help="Other answers in the same format, to measure the thresholds on."),
    ] = None,
    evaluator: Annotated[
        Path | None,
        typer.Option(help="Evaluator folder, for its calibrator, thresholds and provenance."),
    ] = None,
    delta: Annotated[
        float, typer.Option(help="The probability that any of the promises fails.")
    ] = 0.05,
    columns: ColumnsOption = None,
) -> None:
    """Write a report on scored answers: one HTML file that opens anywhere, without a network.

    Example: aspire-guard report scored.jsonl --test test.jsonl --output report.html

    The report also shows optional keys of the lines: `log_likelihood` and `p_correct`, to compare scores, `question`
    and `answer`, to read the worst mistakes, `sentences`, to underline the doubtful sentences of these answers, and
    `out_of_domain`, to count the answers that are unlike those of the calibration.
    """
    from aspire_guard.evaluators.evaluator_folder import read_calibration
    from aspire_guard.records.columns import Columns
    from aspire_guard.selection.report import write_report
    from aspire_guard.selection.report.error_examples import read_texts
    from aspire_guard.selection.scored_answers import read_scored

    mapping = Columns.parse(columns)
    inputs = [scored] if test is None else [scored, test]
    check_output_path(output, *inputs)
    answers = read_scored(scored, mapping)
    print_warnings(answers, evaluator)
    today = datetime.now(UTC).date().isoformat()
    if evaluator is None:
        calibration, settings = _fit_calibration(answers, today), None
    else:
        calibration, settings = read_calibration(evaluator), _read_settings(evaluator)
    write_report(
        answers,
        calibration,
        output,
        date=today,
        test=None if test is None else read_scored(test, mapping),
        evaluator=settings,
        delta=delta,
        read_texts=partial(read_texts, inputs[-1], columns=mapping),
    )


def _fit_calibration(answers: ScoredAnswers, date: str) -> Calibration:
    """Fit the best calibrator of these answers, without thresholds."""
    from aspire_guard.selection.calibration import Calibration
    from aspire_guard.selection.calibrators import fit_calibrator

    calibrator = fit_calibrator(answers.selection_score, answers.correct).calibrator
    return Calibration(calibrator=calibrator, n=len(answers), date=date, source=answers.source)


def _read_settings(evaluator: Path) -> dict[str, Any]:
    """Read the settings and the provenance of an evaluator folder, as JSON values."""
    from aspire_guard.evaluators.evaluator_folder import read_manifest

    # The digests of the files and the metrics on other data would fill the page.
    return read_manifest(evaluator).model_dump(mode="json", exclude={"files", "metrics"})
