"""The command `calibrate` for records with two stages: the chain's answer and the fallback's."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from aspire_guard.cli.calibrate_output import print_line
from aspire_guard.cli.calibration_checks import check_evaluator, print_warnings
from aspire_guard.errors import InputError
from aspire_guard.evaluators.evaluator_folder import read_calibration
from aspire_guard.records.columns import Columns
from aspire_guard.routing.policy_file import write_policy
from aspire_guard.selection.arrays import Numbers
from aspire_guard.selection.risk_control.candidate_thresholds import UnmetTarget
from aspire_guard.selection.risk_control.policy_grid import StagedCosts
from aspire_guard.selection.risk_control.staged_policy import StagedPolicy, choose_staged_policy
from aspire_guard.selection.staged_answers import STAGES, StagedAnswers, read_staged


def calibrate_stages(
    records: Path,
    *,
    target_risk: float | None,
    costs: StagedCosts | None,
    delta: float,
    evaluator: Path | None,
    policy: Path | None,
    fallback: str | None,
    review: str | None,
    as_json: bool,
    columns: Columns,
) -> bool:
    """Choose the policy of two stages, write it and print it. Return False if no policy meets the target.

    A guard scores the chain's answer and the fallback's with one evaluator, and compares both confidences with the
    policy's thresholds. So the thresholds are chosen on the confidences that this evaluator gives to both. With
    --evaluator these come from its own calibration, and without from the lines. No calibrator is fitted or written
    here, because a fit would move the scale on which the guard compares. Calibrate the evaluator first if it needs
    it. A later calibration changes its confidences, so the policy must then be chosen again.

    Raises:
        InputError: the options don't suit the records, or the records can't be used.
    """
    if target_risk is None or costs is None:
        found = "no costs" if costs is None else "no target risk"
        raise InputError(
            f"objective: expected a target risk and costs for two stages, found {found}; pass e.g. --target-risk 0.1 "
            "--cost wrong=20,abstain=4,fallback=1"
        )
    if policy is not None:
        _check_names(costs, fallback, review)
    staged = read_staged(records, columns)
    check_evaluator(staged.source, staged.evaluator, evaluator)
    print_warnings(staged.stage("answer"), evaluator)
    date = datetime.now(UTC).date().isoformat()
    chosen = choose_staged_policy(
        _find_guard_confidences(staged, evaluator),
        staged.correct,
        costs=costs,
        target_risk=target_risk,
        date=date,
        delta=delta,
    )
    if policy is not None and isinstance(chosen, StagedPolicy):
        write_policy(policy, {"bands": _make_bands(chosen, fallback, review)})
        scale = "confidences in the lines" if evaluator is None else "evaluator's confidences"
        typer.echo(
            f"{policy}: releases answers from {chosen.accept:.4f} on, asks the fallback from {chosen.fallback:.4f} on "
            f"and releases its answers from {chosen.accept_fallback:.4f} on, on the scale of the {scale}",
            err=True,
        )
    if as_json:
        _print_json(staged, chosen)
    else:
        _print_table(staged, chosen)
    return isinstance(chosen, StagedPolicy)


def _check_names(costs: StagedCosts, fallback: str | None, review: str | None) -> None:
    """Refuse to write a policy that would ask a fallback or a review queue without a name."""
    if fallback is None:
        raise InputError(
            "policy: expected the name of the fallback that the policy asks, found none; pass --fallback "
            "package.module:name"
        )
    if costs.otherwise == "review" and review is None:
        raise InputError(
            "policy: expected the URL of a review queue, since a review costs no more than abstaining, found none; "
            "pass for example --review sqlite:///reviews.db, or leave review out of the costs"
        )


def _find_guard_confidences(staged: StagedAnswers, evaluator: Path | None) -> Numbers:
    """Return the confidences that the guard will meet, `(n, 2)`; see `calibrate_stages`."""
    if evaluator is not None:
        calibrator = read_calibration(evaluator).calibrator
        columns = [calibrator.confidences(scores) for scores in staged.selection_score.T]
        return np.column_stack(columns)
    if staged.confidence is None:
        raise InputError(
            f'{staged.source}: expected a "confidence" of both answers in every line, to give the policy its scale, '
            "found answers without; score the answers again, or give the --evaluator that the policy is for"
        )
    return staged.confidence


def _make_bands(
    policy: StagedPolicy, fallback: str | None, review: str | None
) -> list[dict[str, Any]]:
    """Return the bands of the policy file. A threshold of 1 releases nothing, so it opens no band."""
    otherwise = {"human_review": review} if policy.otherwise == "review" else "abstain"
    bands: list[dict[str, Any]] = []
    if policy.accept < 1:
        bands.append({"at_least": policy.accept, "route": "accept"})
    if policy.fallback < policy.accept and policy.accept_fallback < 1:
        ask = {"fallback": {"runnable": fallback, "accept_from": policy.accept_fallback}}
        bands.append({"at_least": policy.fallback, "route": [ask, otherwise]})
    if not bands or bands[-1]["at_least"] > 0:
        bands.append({"at_least": 0.0, "route": otherwise})
    return bands


def _print_table(staged: StagedAnswers, chosen: StagedPolicy | UnmetTarget) -> None:
    console = Console()
    answer, fallback = staged.correct.mean(axis=0)
    lines = [
        f"{len(staged):,} questions, {answer:.1%} of the answers right and {fallback:.1%} of the fallback's"
    ]
    if isinstance(chosen, StagedPolicy):
        table = Table("answer of", "confidence ≥", "then")
        table.add_row("chain", f"{chosen.accept:.4f}", "release it")
        table.add_row("chain", f"{chosen.fallback:.4f}", "ask the fallback")
        table.add_row("fallback", f"{chosen.accept_fallback:.4f}", "release it")
        table.add_row("either", "0.0000", chosen.otherwise)
        console.print(table)
        wrong = "–" if chosen.risk is None else f"{chosen.risk:.1%}"
        lines.append(
            f"on the half of the records that tested it: {chosen.coverage:.1%} released, {wrong} of these wrong, "
            f"the fallback asked for {chosen.asked:.1%}, mean cost {chosen.cost:.4g}"
        )
    lines.append(f"policy: {_describe_promise(chosen)}")
    for line in lines:
        print_line(console, line)


def _print_json(staged: StagedAnswers, chosen: StagedPolicy | UnmetTarget) -> None:
    accuracies = staged.correct.mean(axis=0).tolist()
    result: dict[str, Any] = {
        "n": len(staged),
        "accuracy": dict(zip(STAGES, accuracies, strict=True)),
        "policy": None,
        "missing": None,
    }
    values = chosen.model_dump(mode="json")
    if isinstance(chosen, StagedPolicy):
        result["policy"] = values | {"promise": _describe_promise(chosen)}
    else:
        result["missing"] = values | {"reason": chosen.sentence}
    typer.echo(json.dumps(result, ensure_ascii=False))


def _describe_promise(chosen: StagedPolicy | UnmetTarget) -> str:
    if not isinstance(chosen, StagedPolicy):
        return chosen.sentence
    if chosen.guarantee is None:
        return "releasing nothing costs least, so nothing is promised"
    return chosen.guarantee.sentence
