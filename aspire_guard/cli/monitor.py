"""The command `monitor`."""

from __future__ import annotations

import hashlib
import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aspire_guard.cli.options import ColumnsOption
from aspire_guard.errors import InputError
from aspire_guard.records.columns import Columns
from aspire_guard.records.reading import read_numbered_records

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
        typer.Option(help="A file with `selection_score`: new answers, released or not."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="A file with `id`, `selection_score` and `correct`: released answers that were reviewed."
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
            help="The risk that was promised. By default the one that the evaluator promises."
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
    columns: ColumnsOption = None,
) -> None:
    """Watch whether a threshold's promise still holds, from new scores and from reviewers' labels.

    Example: aspire-guard monitor state.json --scores today.jsonl --labels reviewed.jsonl

    An answer is counted once, however often its file is given. If a file has grown, only its new lines are counted. Of
    several answers to one question, the label of the first counts.
    Exit code 0: ok, or a warning. Exit code 4: alarm.
    """
    import numpy as np

    from aspire_guard.evaluators.evaluator_folder import read_calibration
    from aspire_guard.selection.monitoring.risk_monitor import RiskMonitor
    from aspire_guard.selection.question_groups import find_first_of_each_question
    from aspire_guard.selection.scored_answers import read_scored, read_selection_scores

    mapping = Columns.parse(columns)
    # All files are read before the monitor changes: a mistake in one should not leave half of the work behind.
    evaluator_calibration = None if evaluator is None else read_calibration(evaluator)
    new_scores = None if scores is None else read_selection_scores(scores, mapping)
    reviewed = None if labels is None else read_scored(labels, mapping)
    if calibration is None:
        risk_monitor = RiskMonitor.load(state)
    else:
        risk = _find_promised_risk(evaluator_calibration) if target_risk is None else target_risk
        old_scores = read_scored(calibration, mapping).selection_score
        risk_monitor = RiskMonitor.start(old_scores, target_risk=risk, delta=delta, path=state)
    if scores is not None and new_scores is not None:
        n_known, batch = _count_known_lines(
            scores, mapping, "scores", len(new_scores), risk_monitor
        )
        risk_monitor.observe_scores(new_scores[n_known:], batch=batch)
    if labels is not None and reviewed is not None:
        n_known, batch = _count_known_lines(labels, mapping, "labels", len(reviewed), risk_monitor)
        is_counted = np.ones(len(reviewed), dtype=np.bool_)
        if evaluator_calibration is not None:
            is_counted = evaluator_calibration.released(reviewed.selection_score, reviewed.group)
        if reviewed.question is not None:
            # Answers to one question are right or wrong together, and the test needs independent ones.
            is_counted = find_first_of_each_question(reviewed.question, is_counted)
        new_labels = reviewed.correct[n_known:][is_counted[n_known:]]
        risk_monitor.observe_labels(new_labels, batch=batch)
    typer.echo(risk_monitor.explain())
    if risk_monitor.is_alarmed():
        raise typer.Exit(_ALARM)


def _find_promised_risk(evaluator_calibration: Calibration | None) -> float:
    accept = evaluator_calibration.threshold_for() if evaluator_calibration else None
    if accept is None or accept.guarantee is None:
        found = (
            "an evaluator that promises none"
            if evaluator_calibration
            else "neither that nor an evaluator"
        )
        raise InputError(
            f"monitor: expected a target risk to watch, found {found}; pass --target-risk"
        )
    return accept.guarantee.target_risk


def _count_known_lines(
    path: Path, columns: Columns, kind: str, n: int, risk_monitor: RiskMonitor
) -> tuple[int, str]:
    """Count the lines of a file that are in a batch of the monitor already.

    Returns:
        How many of the file's first `n` lines the monitor has counted before, and the name of a batch of all of them.
    """
    digest = hashlib.sha256(kind.encode())
    counted = set(risk_monitor.record.batches)
    n_known = 0
    # No more lines than were read: the file may have grown since.
    lines = islice(read_numbered_records(path, columns), n)
    for number, (_, record) in enumerate(lines, start=1):
        # Without the label: a line stays known if only its label is fixed.
        line = json.dumps([record.get("id"), record["selection_score"]])
        digest.update(line.encode())
        if digest.hexdigest() in counted:
            n_known = number
    if n_known:
        found = "all" if n_known == n else f"the first {n_known:,}"
        typer.echo(
            f"warning: {path}: {found} of {n:,} lines were counted before, and are not counted again",
            err=True,
        )
    return n_known, digest.hexdigest()
