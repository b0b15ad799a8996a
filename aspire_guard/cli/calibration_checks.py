"""The checks of scored answers that `calibrate` and `report` share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from aspire_guard.errors import InputError

if TYPE_CHECKING:
    from aspire_guard.selection.scored_answers import ScoredAnswers


def check_evaluator(source: str, scorer: str | None, evaluator: Path | None) -> None:
    """Refuse scores of another evaluator, because no evaluator keeps a promise that rests on another's scores.

    Args:
        source: the name of the file with the scores.
        scorer: the evaluator that the scores come from (`Manifest.scorer`), or None if it is unknown.
        evaluator: the folder of the evaluator that is to keep the promise, or None if no folder is given.

    Raises:
        InputError: the scores come from another evaluator.
    """
    from aspire_guard.evaluators.evaluator_folder import read_manifest

    if evaluator is not None and scorer not in (None, read_manifest(evaluator).scorer):
        raise InputError(
            f"{source}: expected scores of the evaluator in {evaluator}, found those of another; score the "
            "answers with it, or leave --evaluator out and write a --policy"
        )


def print_warnings(answers: ScoredAnswers, evaluator: Path | None) -> None:
    """Print on standard error the reasons why these answers are a poor calibration set."""
    from aspire_guard.evaluators.evaluator_folder import read_manifest
    from aspire_guard.selection.scored_answers import find_warnings

    provenance = None if evaluator is None else read_manifest(evaluator).provenance
    for warning in find_warnings(answers, provenance):
        typer.echo(f"warning: {answers.source}: {warning}", err=True)
