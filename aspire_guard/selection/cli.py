"""The commands `calibrate`, `report` and `monitor`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aspire_guard.errors import InputError

if TYPE_CHECKING:
    from aspire_guard.evaluators.folder import Manifest
    from aspire_guard.selection.calibration import Calibration
    from aspire_guard.selection.scored import ScoredAnswers
    from aspire_guard.selection.thresholds import Costs

_NO_THRESHOLD = 3
_ALARM = 4


class CalibrationMethod(StrEnum):
    """How a selection score becomes a confidence."""

    BEST = "best"
    PLATT = "platt"
    ISOTONIC = "isotonic"
    TEMPERATURE = "temperature"
    VENN_ABERS = "venn_abers"


def calibrate(
    scored: Annotated[Path, typer.Argument(help="JSONL as `score` writes it, with `correct` in every line.")],
    target_risk: Annotated[
        float | None, typer.Option(help="The most wrong answers among the released ones, e.g. 0.05.")
    ] = None,
    target_coverage: Annotated[
        float | None, typer.Option(help="Or: the share of answers to release, e.g. 0.8.")
    ] = None,
    cost: Annotated[
        str | None,
        typer.Option(
            help="Or: costs to keep low, e.g. wrong=5,abstain=1 (abstain=1 where every line has a `cost`, that of "
            "the answer if it is released and wrong); with a target risk the cheapest threshold that keeps it."
        ),
    ] = None,
    band: Annotated[
        list[str] | None,
        typer.Option(help="A further band with its own target risk, e.g. review=0.2; may be given several times."),
    ] = None,
    by_group: Annotated[bool, typer.Option("--by-group", help="A threshold for each `group` of the lines.")] = False,
    delta: Annotated[float, typer.Option(help="The probability that a promise fails, of all together.")] = 0.05,
    method: Annotated[
        CalibrationMethod, typer.Option(help="From score to confidence; best: by cross-validation.")
    ] = CalibrationMethod.BEST,
    evaluator: Annotated[
        Path | None, typer.Option(help="Write calibrator and thresholds into this evaluator folder.")
    ] = None,
    policy: Annotated[Path | None, typer.Option(help="Write a policy with the threshold into this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Find the confidence from which answers may be released, and say what that promises.

    Example: aspire-guard calibrate scored.jsonl --target-risk 0.05 --evaluator my-evaluator

    Exit code 3: no threshold meets the target; printed is the best that can be promised and how many more labelled
    answers would be needed, and nothing is written. Of several bands or groups, one that has no threshold releases
    nothing.
    """
    from aspire_guard.selection.calibration import Calibration, Threshold
    from aspire_guard.selection.calibrators import fit_calibrator
    from aspire_guard.selection.objective import Objective, closed
    from aspire_guard.selection.scored import read_scored
    from aspire_guard.selection.summary import print_json, print_table

    answers = read_scored(scored)
    _warn(answers, evaluator)
    objective = Objective(
        target_risk=target_risk,
        target_coverage=target_coverage,
        cost=None if cost is None else _costs(cost, answers),
        bands=_named_numbers(band or [], "band"),
        by_group=by_group,
        delta=delta,
    )
    today = datetime.now(UTC).date().isoformat()
    fitted = fit_calibrator(answers.selection_score, answers.correct, method=method.value)
    found = objective.choose(answers, fitted.calibrator, today)
    calibration = Calibration(
        calibrator=fitted.calibrator,
        thresholds=tuple(item if isinstance(item, Threshold) else closed(item) for item in found),
        n=len(answers),
        date=today,
        source=answers.source,
    )
    none = not any(isinstance(item, Threshold) for item in found)
    if not none:
        _save(calibration, answers, evaluator, policy)
    (print_json if as_json else print_table)(answers, fitted, found)
    if none:
        raise typer.Exit(_NO_THRESHOLD)


def report(
    scored: Annotated[Path, typer.Argument(help="JSONL as `score` writes it, with `correct` in every line.")],
    output: Annotated[Path, typer.Option(help="The HTML file to write.")],
    test: Annotated[
        Path | None, typer.Option(help="The same of other answers, to see what the thresholds come to on them.")
    ] = None,
    evaluator: Annotated[
        Path | None, typer.Option(help="Evaluator folder: its calibrator, thresholds and provenance.")
    ] = None,
    delta: Annotated[float, typer.Option(help="The probability that a promise fails, of all together.")] = 0.05,
) -> None:
    """Write a report on scored answers: one HTML file that opens anywhere, without a network.

    Example: aspire-guard report scored.jsonl --test test.jsonl --output report.html

    Lines may hold more, which the report shows: `log_likelihood` and `p_correct`, to compare scores, and `question`
    and `answer`, to read the worst mistakes.
    """
    from aspire_guard.selection.report import write_report
    from aspire_guard.selection.report.examples import read_texts
    from aspire_guard.selection.scored import read_scored

    answers = read_scored(scored)
    _warn(answers, evaluator)
    today = datetime.now(UTC).date().isoformat()
    write_report(
        answers,
        _fitted(answers, today) if evaluator is None else _read_calibration(evaluator),
        output,
        date=today,
        test=None if test is None else read_scored(test),
        evaluator=None if evaluator is None else _read_manifest(evaluator),
        delta=delta,
        texts=lambda shown, ids: read_texts(scored if test is None or shown is answers else test, ids),
    )


def monitor(
    state: Annotated[Path, typer.Argument(help="The monitor's file; with --calibration a new one.")],
    scores: Annotated[
        Path | None, typer.Option(help="JSONL with `selection_score`: new answers, released or not.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="JSONL with `id`, `selection_score` and `correct`: released answers that were reviewed."),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Start a monitor: the scored answers that the threshold was calibrated on.")
    ] = None,
    target_risk: Annotated[
        float | None, typer.Option(help="The risk that was promised; where left out, what the evaluator promises.")
    ] = None,
    delta: Annotated[float, typer.Option(help="The probability of a false alarm, ever, of a new monitor.")] = 0.05,
    evaluator: Annotated[
        Path | None, typer.Option(help="Evaluator folder: labels of answers that it would not release are left out.")
    ] = None,
) -> None:
    """Watch whether a threshold's promise still holds, from new scores and from reviewers' labels.

    Example: aspire-guard monitor state.json --scores today.jsonl --labels reviewed.jsonl

    A file is counted once, however often it is given. Exit code 0: ok, or a warning; 4: alarm.
    """
    from aspire_guard.selection.drift import RiskMonitor
    from aspire_guard.selection.scored import read_scored, read_selection_scores

    held = None if evaluator is None else _read_calibration(evaluator)
    new_scores = None if scores is None else read_selection_scores(scores)
    reviewed = None if labels is None else read_scored(labels)
    if calibration is None:
        watch = RiskMonitor.load(state)
    else:
        risk = _promised_risk(held) if target_risk is None else target_risk
        old_scores = read_scored(calibration).selection_score
        watch = RiskMonitor.start(old_scores, target_risk=risk, delta=delta, path=state)
    if scores is not None and new_scores is not None:
        _counted(scores, watch.observe_scores(new_scores, batch=_digest("scores", scores)))
    if labels is not None and reviewed is not None:
        right = reviewed.correct if held is None else reviewed.correct[_released(reviewed, held)]
        _counted(labels, watch.observe_labels(right, batch=_digest("labels", labels)))
    typer.echo(watch.explain())
    if watch.alarmed():
        raise typer.Exit(_ALARM)


def _fitted(answers: ScoredAnswers, today: str) -> Calibration:
    """The best calibrator of these answers, without thresholds."""
    from aspire_guard.selection.calibration import Calibration
    from aspire_guard.selection.calibrators import fit_calibrator

    calibrator = fit_calibrator(answers.selection_score, answers.correct).calibrator
    return Calibration(calibrator=calibrator, n=len(answers), date=today, source=answers.source)


def _warn(answers: ScoredAnswers, evaluator: Path | None) -> None:
    from aspire_guard.selection.scored import warnings

    provenance = None if evaluator is None else _read_manifest(evaluator).provenance
    for warning in warnings(answers, provenance):
        typer.echo(f"warning: {answers.source}: {warning}", err=True)


def _save(calibration: Calibration, answers: ScoredAnswers, evaluator: Path | None, policy: Path | None) -> None:
    """Write the evaluator's calibration, and the policy."""
    from aspire_guard.selection.policy_file import threshold_in_lines, write_policy

    accept = calibration.threshold_for()
    if policy is not None and accept is None:
        raise InputError(
            "policy: expected a threshold for all answers, found groups, or bands without accept; write these into an "
            "--evaluator, where the guard finds them"
        )
    # Before anything is written: what can't be a policy should not leave half of the work behind.
    released_from = accept.confidence if accept else 1.0
    if policy is not None and accept is not None and evaluator is None:
        released_from = threshold_in_lines(accept, answers)
    if evaluator is not None:
        from aspire_guard.evaluators.folder import save_calibration

        save_calibration(evaluator, calibration)
    if policy is not None:
        write_policy(policy, released_from)
        scale = "confidences in the lines" if evaluator is None else "evaluator's new confidences"
        typer.echo(f"{policy}: releases from {released_from:.4f} on, on the scale of the {scale}", err=True)


def _costs(text: str, answers: ScoredAnswers) -> Costs:
    """Costs such as `wrong=5,abstain=1`; `wrong` is in the lines where these have a cost."""
    from aspire_guard.selection.thresholds import Costs

    costs = _named_numbers(text.split(","), "cost")
    expected = {"abstain"} if answers.cost is not None else {"abstain", "wrong"}
    if set(costs) != expected or min(costs.values()) < 0 or math.inf in costs.values():
        own = "the lines have the cost of wrong answers" if answers.cost is not None else "the lines have no costs"
        example = ",".join(f"{name}=1" for name in sorted(expected))
        raise InputError(f"cost: expected costs of 0 or more like {example}, found {text!r}; {own}, so pass just these")
    return Costs(**({"wrong": 0.0} | costs))


def _named_numbers(texts: Iterable[str], option: str) -> dict[str, float]:
    """Names and numbers of texts such as `review=0.2`."""
    numbers: dict[str, float] = {}
    for text in texts:
        name, _, number = (part.strip() for part in text.partition("="))
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not name or math.isnan(value):
            example = "expected a name and a number like review=0.2"
            raise InputError(f"{option}: {example}, found {text!r}; write it like that")
        if name in numbers:
            raise InputError(f"{option}: expected each name once, found {name} twice; drop one")
        numbers[name] = value
    return numbers


def _promised_risk(held: Calibration | None) -> float:
    accept = held.threshold_for() if held else None
    if accept is None or accept.guarantee is None:
        found = "an evaluator that promises none" if held else "neither that nor an evaluator"
        raise InputError(f"monitor: expected a target risk to watch, found {found}; pass --target-risk")
    return accept.guarantee.target_risk


def _released(answers: ScoredAnswers, held: Calibration) -> Any:
    """Which answers the guard would release, `(n,)`: the comparison it makes itself."""
    import numpy as np

    groups = answers.group or (None,) * len(answers)
    cuts = {group: held.threshold_for(group) for group in set(groups)}
    least = [1.0 if (cut := cuts[group]) is None else cut.confidence for group in groups]
    return held.calibrator.confidences(answers.selection_score) >= np.array(least)


def _counted(path: Path, counted: bool) -> None:
    if not counted:
        typer.echo(f"warning: {path}: counted before, so it changes nothing", err=True)


def _digest(kind: str, path: Path) -> str:
    with path.open("rb") as stream:
        return f"{kind}:{hashlib.file_digest(stream, 'sha256').hexdigest()}"


def _read_manifest(folder: Path) -> Manifest:
    from aspire_guard.evaluators.folder import read_manifest

    return read_manifest(folder)


def _read_calibration(folder: Path) -> Calibration:
    from aspire_guard.evaluators.folder import read_calibration

    return read_calibration(folder)
