"""The command `monitor`."""

from __future__ import annotations

import hashlib
import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aspire_guard.errors import InputError
from aspire_guard.jsonl import read_numbered_objects

if TYPE_CHECKING:
    from aspire_guard.selection.calibration import Calibration
    from aspire_guard.selection.monitoring.risk_monitor import RiskMonitor

_ALARM = 4


def monitor(
    state: Annotated[
        Path, typer.Argument(help="The monitor's file; with --calibration a new one.")
    ],
    scores: Annotated[
        Path | None,
        typer.Option(help="JSONL with `selection_score`: new answers, released or not."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="JSONL with `id`, `selection_score` and `correct`: released answers that were reviewed."
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="Start a monitor: the scored answers that the threshold was calibrated on."
        ),
    ] = None,
    target_risk: Annotated[
        float | None,
        typer.Option(
            help="The risk that was promised; where left out, what the evaluator promises."
        ),
    ] = None,
    delta: Annotated[
        float, typer.Option(help="The probability of a false alarm, ever, of a new monitor.")
    ] = 0.05,
    evaluator: Annotated[
        Path | None,
        typer.Option(
            help="Evaluator folder: labels of answers that it would not release are left out."
        ),
    ] = None,
) -> None:
    """Watch whether a threshold's promise still holds, from new scores and from reviewers' labels.

    Example: aspire-guard monitor state.json --scores today.jsonl --labels reviewed.jsonl

    An answer is counted once, however often its file is given; of a file that has grown the new lines are counted. Exit
    code 0: ok, or a warning; 4: alarm.
    """
    from aspire_guard.evaluators.evaluator_folder import read_calibration
    from aspire_guard.selection.monitoring.risk_monitor import RiskMonitor
    from aspire_guard.selection.scored_answers import read_scored, read_selection_scores

    held = None if evaluator is None else read_calibration(evaluator)
    new_scores = None if scores is None else read_selection_scores(scores)
    reviewed = None if labels is None else read_scored(labels)
    if calibration is None:
        watch = RiskMonitor.load(state)
    else:
        risk = _promised_risk(held) if target_risk is None else target_risk
        old_scores = read_scored(calibration).selection_score
        watch = RiskMonitor.start(old_scores, target_risk=risk, delta=delta, path=state)
    if scores is not None and new_scores is not None:
        known, whole = _counted(scores, "scores", len(new_scores), watch)
        watch.observe_scores(new_scores[known:], batch=whole)
    if labels is not None and reviewed is not None:
        known, whole = _counted(labels, "labels", len(reviewed), watch)
        promised = (
            slice(None)
            if held is None
            else held.released(reviewed.selection_score, reviewed.group)[known:]
        )
        watch.observe_labels(reviewed.correct[known:][promised], batch=whole)
    typer.echo(watch.explain())
    if watch.alarmed():
        raise typer.Exit(_ALARM)


def _promised_risk(held: Calibration | None) -> float:
    accept = held.threshold_for() if held else None
    if accept is None or accept.guarantee is None:
        found = "an evaluator that promises none" if held else "neither that nor an evaluator"
        raise InputError(
            f"monitor: expected a target risk to watch, found {found}; pass --target-risk"
        )
    return accept.guarantee.target_risk


def _counted(path: Path, kind: str, n: int, watch: RiskMonitor) -> tuple[int, str]:
    """How many of a file's `n` lines the monitor has counted before, and the name of a batch of them all."""
    digest, known, batches = hashlib.sha256(kind.encode()), 0, set(watch.record.batches)
    # No more than were read: the file may have grown since. A line is known again where only its label is fixed.
    for number, (_, value) in enumerate(islice(read_numbered_objects(path), n), start=1):
        digest.update(json.dumps([value.get("id"), value["selection_score"]]).encode())
        if digest.hexdigest() in batches:
            known = number
    if known:
        found = "all" if known == n else f"the first {known:,}"
        typer.echo(
            f"warning: {path}: {found} of {n:,} lines were counted before, and are not counted again",
            err=True,
        )
    return known, digest.hexdigest()
