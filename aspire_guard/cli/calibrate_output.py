"""What `calibrate` prints: a table for people, or one JSON object."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from aspire_guard.selection.calibration import Threshold
from aspire_guard.selection.calibrators import FittedCalibrator
from aspire_guard.selection.risk_control.thresholds import NoThreshold
from aspire_guard.selection.scored_answers import ScoredAnswers


def print_table(
    answers: ScoredAnswers, fitted: FittedCalibrator, found: list[Threshold | NoThreshold]
) -> None:
    """Print the thresholds as a table, and below it what each promises, or why there is none."""
    console = Console()
    accuracy = f"{len(answers):,} answers, {answers.correct.mean():.1%} of them right"
    console.print(f"{accuracy} · {_chosen(fitted)}", soft_wrap=True, highlight=False, markup=False)
    thresholds = [item for item in found if isinstance(item, Threshold)]
    if thresholds:
        kind = "group" if thresholds[0].group is not None else "band"
        table = Table(kind, "confidence ≥", "score ≥", "released", "wrong of these", "promised")
        for threshold in thresholds:
            table.add_row(_name(threshold), *_cells(threshold))
        console.print(table)
    for item in found:
        console.print(
            f"{_name(item)}: {_promise(item)}", soft_wrap=True, highlight=False, markup=False
        )


def _cells(item: Threshold) -> Iterator[str]:
    yield f"{item.confidence:.4f}"
    yield (
        "–"
        if item.selection_score is None
        else "all"
        if item.confidence == 0
        else f"{item.selection_score:.4f}"
    )
    yield "–" if item.coverage is None else f"{item.coverage:.1%}"
    yield "–" if item.risk is None else f"{item.risk:.1%}"
    yield "–" if item.risk_bound is None else f"≤ {item.risk_bound:.1%}"


def _promise(item: Threshold | NoThreshold) -> str:
    if not isinstance(item, Threshold):
        return item.sentence
    cost = (
        f"a mean cost of {item.target:.4g} on these answers; " if item.objective == "cost" else ""
    )
    return cost + (
        item.guarantee.sentence
        if item.guarantee
        else "an estimate on these answers, not a guarantee"
    )


def _name(item: Threshold | NoThreshold) -> str:
    return item.name if item.group is None else item.group


def _chosen(fitted: FittedCalibrator) -> str:
    method = fitted.calibrator.method
    losses = fitted.comparison.get(method)
    if losses is None:
        return f"confidence by {method}"
    return f"confidence by {method}: Brier score {losses.brier:.4f}, ECE {losses.ece:.4f} (cross-validated)"


def print_json(
    answers: ScoredAnswers, fitted: FittedCalibrator, found: list[Threshold | NoThreshold]
) -> None:
    """Print one JSON object: thresholds, the targets that have none, and how the calibrator was chosen."""
    thresholds = [item for item in found if isinstance(item, Threshold)]
    missing = [item for item in found if not isinstance(item, Threshold)]
    result: dict[str, Any] = {
        "n": len(answers),
        "accuracy": float(answers.correct.mean()),
        "method": fitted.calibrator.method,
        "comparison": {name: losses._asdict() for name, losses in fitted.comparison.items()},
        "thresholds": [
            item.model_dump(mode="json")
            | {"promise": item.guarantee.sentence if item.guarantee else None}
            for item in thresholds
        ],
        "missing": [item.model_dump(mode="json") | {"reason": item.sentence} for item in missing],
    }
    typer.echo(json.dumps(result, ensure_ascii=False))
