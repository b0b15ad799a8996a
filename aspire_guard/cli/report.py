"""The command `report`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aspire_guard.cli.calibrate import warn
from aspire_guard.jsonl import check_output_path

if TYPE_CHECKING:
    from aspire_guard.selection.calibration import Calibration
    from aspire_guard.selection.scored_answers import ScoredAnswers


def report(
    scored: Annotated[
        Path, typer.Argument(help="JSONL as `score` writes it, with `correct` in every line.")
    ],
    output: Annotated[Path, typer.Option(help="The HTML file to write.")],
    test: Annotated[
        Path | None,
        typer.Option(help="The same of other answers, to see what the thresholds come to on them."),
    ] = None,
    evaluator: Annotated[
        Path | None,
        typer.Option(help="Evaluator folder: its calibrator, thresholds and provenance."),
    ] = None,
    delta: Annotated[
        float, typer.Option(help="The probability that a promise fails, of all together.")
    ] = 0.05,
) -> None:
    """Write a report on scored answers: one HTML file that opens anywhere, without a network.

    Example: aspire-guard report scored.jsonl --test test.jsonl --output report.html

    Lines may hold more, which the report shows: `log_likelihood` and `p_correct`, to compare scores, and `question`
    and `answer`, to read the worst mistakes.
    """
    from aspire_guard.evaluators.evaluator_folder import read_calibration, read_manifest
    from aspire_guard.selection.report import write_report
    from aspire_guard.selection.report.error_examples import read_texts
    from aspire_guard.selection.scored_answers import read_scored

    check_output_path(output, scored, *([] if test is None else [test]))
    answers = read_scored(scored)
    warn(answers, evaluator)
    today = datetime.now(UTC).date().isoformat()
    write_report(
        answers,
        _fitted(answers, today) if evaluator is None else read_calibration(evaluator),
        output,
        date=today,
        test=None if test is None else read_scored(test),
        evaluator=None if evaluator is None else read_manifest(evaluator),
        delta=delta,
        texts=lambda shown, ids: read_texts(
            scored if test is None or shown is answers else test, ids
        ),
    )


def _fitted(answers: ScoredAnswers, today: str) -> Calibration:
    """The best calibrator of these answers, without thresholds."""
    from aspire_guard.selection.calibration import Calibration
    from aspire_guard.selection.calibrators import fit_calibrator

    calibrator = fit_calibrator(answers.selection_score, answers.correct).calibrator
    return Calibration(calibrator=calibrator, n=len(answers), date=today, source=answers.source)
