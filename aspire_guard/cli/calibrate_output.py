"""The output of `calibrate`: a table for people, or one JSON object."""

from __future__ import annotations

import json
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from aspire_guard.selection.calibration import Threshold
from aspire_guard.selection.calibrators import FittedCalibrator
from aspire_guard.selection.risk_control.thresholds import UnmetTarget
from aspire_guard.selection.scored_answers import ScoredAnswers


def print_table(
    answers: ScoredAnswers, fitted: FittedCalibrator, results: list[Threshold | UnmetTarget]
) -> None:
    """Print the thresholds as a table, and below it the promise of each, or the reason why there is none."""
    console = Console()
    accuracy = f"{len(answers):,} answers, {answers.correct.mean():.1%} of them right"
    if answers.n_questions < len(answers):
        accuracy += f", to {answers.n_questions:,} questions"
    print_line(console, f"{accuracy} · {_describe_calibrator(fitted)}")
    thresholds = [result for result in results if isinstance(result, Threshold)]
    if thresholds:
        kind = "group" if thresholds[0].group is not None else "band"
        table = Table(kind, "confidence ≥", "score ≥", "released", "wrong of these", "promised")
        for threshold in thresholds:
            table.add_row(*_make_row(threshold))
        console.print(table)
    for result in results:
        print_line(console, f"{_get_name(result)}: {_describe_promise(result)}")


def print_line(console: Console, line: str) -> None:
    """Print a line as it is, however long."""
    console.print(line, soft_wrap=True, highlight=False, markup=False)


def print_json(
    answers: ScoredAnswers, fitted: FittedCalibrator, results: list[Threshold | UnmetTarget]
) -> None:
    """Print one JSON object: thresholds, the targets that have none, and the comparison of calibrators."""
    thresholds, missing = [], []
    for result in results:
        values = result.model_dump(mode="json")
        if isinstance(result, Threshold):
            promise = result.guarantee.sentence if result.guarantee else None
            thresholds.append(values | {"promise": promise})
        else:
            missing.append(values | {"reason": result.sentence})
    output: dict[str, Any] = {
        "n": len(answers),
        "n_questions": answers.n_questions,
        "accuracy": float(answers.correct.mean()),
        "method": fitted.calibrator.method,
        "comparison": {name: losses._asdict() for name, losses in fitted.comparison.items()},
        "thresholds": thresholds,
        "missing": missing,
    }
    typer.echo(json.dumps(output, ensure_ascii=False))


def _make_row(threshold: Threshold) -> list[str]:
    """Return a row of the table, with a dash for an unknown number."""
    if threshold.selection_score is None:
        score = "–"
    elif threshold.confidence == 0:
        score = "all"
    else:
        score = f"{threshold.selection_score:.4f}"
    return [
        _get_name(threshold),
        f"{threshold.confidence:.4f}",
        score,
        "–" if threshold.coverage is None else f"{threshold.coverage:.1%}",
        "–" if threshold.risk is None else f"{threshold.risk:.1%}",
        "–" if threshold.risk_bound is None else f"≤ {threshold.risk_bound:.1%}",
    ]


def _describe_promise(result: Threshold | UnmetTarget) -> str:
    if not isinstance(result, Threshold):
        return result.sentence
    promise = "an estimate on these answers, not a guarantee"
    if result.guarantee:
        promise = result.guarantee.sentence
    if result.objective == "cost":
        return f"a mean cost of {result.target:.4g} on these answers; {promise}"
    return promise


def _get_name(result: Threshold | UnmetTarget) -> str:
    return result.name if result.group is None else result.group


def _describe_calibrator(fitted: FittedCalibrator) -> str:
    method = fitted.calibrator.method
    losses = fitted.comparison.get(method)
    if losses is None:
        return f"confidence by {method}"
    return f"confidence by {method}: Brier score {losses.brier:.4f}, ECE {losses.ece:.4f} (cross-validated)"
