"""The command `calibrate`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aspire_guard.errors import InputError

if TYPE_CHECKING:
    from aspire_guard.selection.calibration import Calibration
    from aspire_guard.selection.risk_control.thresholds import Costs
    from aspire_guard.selection.scored_answers import ScoredAnswers

_NO_THRESHOLD = 3


class CalibrationMethod(StrEnum):
    """How a selection score becomes a confidence."""

    BEST = "best"
    PLATT = "platt"
    ISOTONIC = "isotonic"
    TEMPERATURE = "temperature"
    VENN_ABERS = "venn_abers"


def calibrate(
    scored: Annotated[
        Path, typer.Argument(help="JSONL as `score` writes it, with `correct` in every line.")
    ],
    target_risk: Annotated[
        float | None,
        typer.Option(help="The most wrong answers among the released ones, e.g. 0.05."),
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
        typer.Option(
            help="A further band with its own target risk, e.g. review=0.2; may be given several times."
        ),
    ] = None,
    by_group: Annotated[
        bool, typer.Option("--by-group", help="A threshold for each `group` of the lines.")
    ] = False,
    delta: Annotated[
        float, typer.Option(help="The probability that a promise fails, of all together.")
    ] = 0.05,
    method: Annotated[
        CalibrationMethod, typer.Option(help="From score to confidence; best: by cross-validation.")
    ] = CalibrationMethod.BEST,
    evaluator: Annotated[
        Path | None,
        typer.Option(help="Write calibrator and thresholds into this evaluator folder."),
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Write a policy with the threshold into this file.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object and nothing else.")
    ] = False,
) -> None:
    """Find the confidence from which answers may be released, and say what that promises.

    Example: aspire-guard calibrate scored.jsonl --target-risk 0.05 --evaluator my-evaluator

    Exit code 3: no threshold meets the target; printed is the best that can be promised and how many more labelled
    answers would be needed, and nothing is written. Of several bands or groups, one that has no threshold releases
    nothing.
    """
    from aspire_guard.cli.calibrate_output import print_json, print_table
    from aspire_guard.jsonl import check_output_path
    from aspire_guard.selection.calibration import Calibration, Threshold
    from aspire_guard.selection.calibrators import fit_calibrator
    from aspire_guard.selection.risk_control.targets import CalibrationTarget, close_thresholds
    from aspire_guard.selection.scored_answers import read_scored

    if policy is not None:
        check_output_path(policy, scored)
    answers = _of_evaluator(read_scored(scored), evaluator)
    warn(answers, evaluator)
    objective = CalibrationTarget(
        target_risk=target_risk,
        target_coverage=target_coverage,
        cost=None if cost is None else _costs(cost, answers),
        bands=_named_numbers(band or [], "band"),
        by_group=by_group,
        delta=delta,
    )
    today = datetime.now(UTC).date().isoformat()
    fitted = fit_calibrator(answers.selection_score, answers.correct, method=method.value)
    confidences = fitted.calibrator.confidences(answers.selection_score)
    if len(set(confidences)) == 1 < len(set(answers.correct)):
        typer.echo(
            f"warning: {answers.source}: expected scores that rank right answers above wrong ones, found that they "
            "don't, so all have the same confidence; check the labels, or use another evaluator",
            err=True,
        )
    found = objective.choose(answers, fitted.calibrator, today)
    calibration = Calibration(
        calibrator=fitted.calibrator,
        thresholds=tuple(
            item if isinstance(item, Threshold) else close_thresholds(item) for item in found
        ),
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


def _of_evaluator(answers: ScoredAnswers, evaluator: Path | None) -> ScoredAnswers:
    """The answers; no evaluator keeps what another's scores promise."""
    from aspire_guard.evaluators.evaluator_folder import read_manifest

    if evaluator is not None and answers.evaluator not in (None, read_manifest(evaluator).scorer):
        raise InputError(
            f"{answers.source}: expected scores of the evaluator in {evaluator}, found those of another; score the "
            "answers with it, or leave --evaluator out and write a --policy"
        )
    return answers


def warn(answers: ScoredAnswers, evaluator: Path | None) -> None:
    """Say on standard error what makes these answers a poor calibration set."""
    from aspire_guard.evaluators.evaluator_folder import read_manifest
    from aspire_guard.selection.scored_answers import warnings

    provenance = None if evaluator is None else read_manifest(evaluator).provenance
    for warning in warnings(answers, provenance):
        typer.echo(f"warning: {answers.source}: {warning}", err=True)


def _save(
    calibration: Calibration, answers: ScoredAnswers, evaluator: Path | None, policy: Path | None
) -> None:
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
        from aspire_guard.evaluators.evaluator_folder import save_calibration

        save_calibration(evaluator, calibration)
    if policy is not None:
        write_policy(policy, released_from)
        scale = "confidences in the lines" if evaluator is None else "evaluator's new confidences"
        typer.echo(
            f"{policy}: releases from {released_from:.4f} on, on the scale of the {scale}", err=True
        )


def _costs(text: str, answers: ScoredAnswers) -> Costs:
    """Costs such as `wrong=5,abstain=1`; `wrong` is in the lines where these have a cost."""
    from aspire_guard.selection.risk_control.thresholds import Costs

    costs = _named_numbers(text.split(","), "cost")
    expected = {"abstain"} if answers.cost is not None else {"abstain", "wrong"}
    if set(costs) != expected or min(costs.values()) < 0 or math.inf in costs.values():
        own = (
            "the lines have the cost of wrong answers"
            if answers.cost is not None
            else "the lines have no costs"
        )
        example = ",".join(f"{name}=1" for name in sorted(expected))
        raise InputError(
            f"cost: expected costs of 0 or more like {example}, found {text!r}; {own}, so pass just these"
        )
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
