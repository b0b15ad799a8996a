"""The command `calibrate`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aspire_guard.cli.calibration_checks import check_evaluator, print_warnings
from aspire_guard.cli.options import ColumnsOption
from aspire_guard.errors import InputError

if TYPE_CHECKING:
    from aspire_guard.records.columns import Columns
    from aspire_guard.selection.calibration import Calibration, Threshold
    from aspire_guard.selection.risk_control.policy_grid import StagedCosts
    from aspire_guard.selection.risk_control.threshold_request import ThresholdRequest
    from aspire_guard.selection.risk_control.thresholds import Costs
    from aspire_guard.selection.scored_answers import ScoredAnswers

_NO_THRESHOLD = 3


class CalibrationMethod(StrEnum):
    """The ways from a selection score to a confidence."""

    BEST = "best"
    PLATT = "platt"
    ISOTONIC = "isotonic"
    TEMPERATURE = "temperature"
    VENN_ABERS = "venn_abers"


def calibrate(
    scored: Annotated[
        Path,
        typer.Argument(
            help="Answers as `score` writes them, with `correct` in every line; - for standard input."
        ),
    ],
    target_risk: Annotated[
        float | None,
        typer.Option(help="The largest share of wrong answers among the released ones, e.g. 0.05."),
    ] = None,
    target_coverage: Annotated[
        float | None, typer.Option(help="Or: the share of answers to release, e.g. 0.8.")
    ] = None,
    cost: Annotated[
        str | None,
        typer.Option(
            help="Or: costs to keep low, e.g. wrong=5,abstain=1 (abstain=1 if every line has a `cost`, which counts if "
            "the answer is released and wrong). With a target risk: the cheapest threshold that keeps it. With two "
            "stages: wrong=20,abstain=4,fallback=1 and, if there are reviewers, review=3."
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
        float, typer.Option(help="The probability that any of the promises fails.")
    ] = 0.05,
    method: Annotated[
        CalibrationMethod, typer.Option(help="From score to confidence; best: by cross-validation.")
    ] = CalibrationMethod.BEST,
    evaluator: Annotated[
        Path | None,
        typer.Option(
            help="Write calibrator and thresholds into this evaluator folder. With two stages: take the "
            "confidences that it gives, and leave it as it is."
        ),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            help="Write a policy with the threshold, or the two stages' bands, into this file."
        ),
    ] = None,
    fallback: Annotated[
        str | None,
        typer.Option(
            help="With two stages: the policy's fallback, as package.module:name or a name that "
            "`RoutingPolicy.load` is given."
        ),
    ] = None,
    review: Annotated[
        str | None,
        typer.Option(
            help="With two stages: the URL of the policy's review queue, e.g. sqlite:///reviews.db."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object and nothing else.")
    ] = False,
    columns: ColumnsOption = None,
) -> None:
    """Find the confidence from which answers may be released, and say what that promises.

    Example: aspire-guard calibrate scored.jsonl --target-risk 0.05 --evaluator my-evaluator

    Two stages: if the lines hold the `stages` answer and fallback, a target risk and costs with `fallback` give the
    cheapest policy "release the answer, ask the fallback, review or abstain", with one promise about all released
    answers.

    Exit code 3: no threshold meets the target. The command then writes nothing, and prints the best that can be
    promised and how many more labelled answers would be needed. If only some bands or groups have no threshold, these
    release nothing.
    """
    from aspire_guard.jsonl import check_output_path
    from aspire_guard.records.columns import Columns

    if policy is not None:
        check_output_path(policy, scored)
    costs = None if cost is None else _read_named_numbers(cost.split(","), "cost")
    if fallback is not None or (costs is not None and "fallback" in costs):
        from aspire_guard.cli.calibrate_staged import calibrate_stages

        one_stage_options = {
            "--target-coverage": target_coverage is not None,
            "--band": bool(band),
            "--by-group": by_group,
            "--method": method is not CalibrationMethod.BEST,
        }
        _reject_options("one stage", one_stage_options)
        is_met = calibrate_stages(
            scored,
            target_risk=target_risk,
            costs=None if costs is None else _make_staged_costs(costs),
            delta=delta,
            evaluator=evaluator,
            policy=policy,
            fallback=fallback,
            review=review,
            as_json=as_json,
            columns=Columns.parse(columns),
        )
    else:
        from aspire_guard.selection.risk_control.threshold_request import ThresholdRequest

        _reject_options("two stages, --fallback or a cost of it", {"--review": review is not None})
        answers = _read_answers(scored, evaluator, Columns.parse(columns))
        request = ThresholdRequest(
            target_risk=target_risk,
            target_coverage=target_coverage,
            cost=None if costs is None else _make_costs(costs, answers),
            bands=_read_named_numbers(band or [], "band"),
            by_group=by_group,
            delta=delta,
        )
        is_met = _calibrate_answers(answers, request, method, evaluator, policy, as_json)
    if not is_met:
        raise typer.Exit(_NO_THRESHOLD)


def _calibrate_answers(
    answers: ScoredAnswers,
    request: ThresholdRequest,
    method: CalibrationMethod,
    evaluator: Path | None,
    policy: Path | None,
    as_json: bool,
) -> bool:
    """Calibrate, write and print, and return False if no threshold meets a target."""
    from aspire_guard.cli.calibrate_output import print_json, print_table
    from aspire_guard.selection.calibration import Calibration, Threshold
    from aspire_guard.selection.calibrators import fit_calibrator
    from aspire_guard.selection.risk_control.threshold_request import make_closed_threshold

    print_warnings(answers, evaluator)
    date = datetime.now(UTC).date().isoformat()
    fitted = fit_calibrator(answers.selection_score, answers.correct, method=method.value)
    confidences = fitted.calibrator.confidences(answers.selection_score)
    all_tie = len(set(confidences)) == 1
    if all_tie and len(set(answers.correct)) > 1:
        typer.echo(
            f"warning: {answers.source}: expected scores that rank right answers above wrong ones, found that they "
            "don't, so all have the same confidence; check the labels, or use another evaluator",
            err=True,
        )
    results = request.choose_thresholds(answers, fitted.calibrator, date)
    thresholds = [
        result if isinstance(result, Threshold) else make_closed_threshold(result)
        for result in results
    ]
    calibration = Calibration(
        calibrator=fitted.calibrator,
        thresholds=tuple(thresholds),
        n=len(answers),
        date=date,
        source=answers.source,
    )
    is_met = any(isinstance(result, Threshold) for result in results)
    if is_met:
        _save(calibration, answers, evaluator, policy)
    if as_json:
        print_json(answers, fitted, results)
    else:
        print_table(answers, fitted, results)
    return is_met


def _read_answers(scored: Path, evaluator: Path | None, columns: Columns) -> ScoredAnswers:
    from aspire_guard.selection.scored_answers import read_scored

    answers = read_scored(scored, columns)
    check_evaluator(answers.source, answers.evaluator, evaluator)
    return answers


def _save(
    calibration: Calibration, answers: ScoredAnswers, evaluator: Path | None, policy: Path | None
) -> None:
    """Write the evaluator's calibration, and the policy."""
    from aspire_guard.evaluators.evaluator_folder import save_calibration
    from aspire_guard.routing.policy_file import write_policy

    # Found before anything is written, so that a policy that can't be made does not leave half of the work behind.
    lowest_confidence = None
    if policy is not None:
        lowest_confidence = _find_policy_threshold(calibration, answers, evaluator)
    if evaluator is not None:
        save_calibration(evaluator, calibration)
    if policy is not None:
        write_policy(policy, {"threshold": lowest_confidence})
        scale = "confidences in the lines" if evaluator is None else "evaluator's new confidences"
        typer.echo(
            f"{policy}: releases from {lowest_confidence:.4f} on, on the scale of the {scale}",
            err=True,
        )


def _find_policy_threshold(
    calibration: Calibration, answers: ScoredAnswers, evaluator: Path | None
) -> float:
    """Return the lowest confidence that a policy releases, on the scale that its guard will meet."""
    accept = calibration.threshold_for()
    if accept is None:
        raise InputError(
            "policy: expected a threshold for all answers, found groups, or bands without accept; write these into an "
            "--evaluator, where the guard finds them"
        )
    if evaluator is not None:
        return accept.confidence
    return _carry_to_lines(accept, answers)


def _carry_to_lines(threshold: Threshold, answers: ScoredAnswers) -> float:
    """Carry a threshold over to the confidences in the lines, for an evaluator that keeps giving these.

    Args:
        threshold: chosen on these very answers.
        answers: with the confidence of each answer.

    Returns:
        The lowest confidence that is released, in [0, 1]: just above that of the best answer left out.

    Raises:
        InputError: a line has no confidence, or the confidences don't rise with the scores across the threshold.
    """
    confidence = answers.confidence
    if confidence is None:
        raise InputError(
            f'{answers.source}: expected a "confidence" in every line, to give the policy its scale, found lines '
            "without; score the answers again, or give the --evaluator that the policy is for"
        )
    if threshold.selection_score is None:
        return 1.0
    is_released = answers.selection_score >= threshold.selection_score
    if is_released.all():
        return 0.0
    highest_left_out = float(confidence[~is_released].max())
    if not is_released.any() or float(confidence[is_released].min()) <= highest_left_out:
        raise InputError(
            f"{answers.source}: expected confidences that rise with the scores, found {highest_left_out:g} on both "
            "sides of the threshold; score all answers with one evaluator, or write into it with --evaluator"
        )
    return math.nextafter(highest_left_out, 1.0)


def _reject_options(expected: str, given: Mapping[str, bool]) -> None:
    """Refuse the options that are given although they belong to another kind of calibration."""
    rejected = [name for name, is_given in given.items() if is_given]
    if rejected:
        found = ", ".join(rejected)
        raise InputError(f"options: expected {found} with {expected} alone; leave {found} out")


def _make_costs(costs: Mapping[str, float], answers: ScoredAnswers) -> Costs:
    """Make the costs from `wrong` and `abstain`, or from `abstain` alone if the lines have costs of their own."""
    from aspire_guard.selection.risk_control.thresholds import Costs

    expected = {"abstain", "wrong"}
    source = "the lines have no costs"
    if answers.cost is not None:
        expected = {"abstain"}
        source = "the lines have the cost of wrong answers"
    if set(costs) != expected or not _are_costs(costs):
        example = ",".join(f"{name}=1" for name in sorted(expected))
        found = _format_costs(costs)
        raise InputError(
            f"cost: expected costs of 0 or more like {example}, found {found!r}; {source}, so pass just these"
        )
    return Costs(**({"wrong": 0.0} | dict(costs)))


def _make_staged_costs(costs: Mapping[str, float]) -> StagedCosts:
    """Make the costs from `wrong`, `abstain`, `fallback` and, if there are reviewers, `review`."""
    from aspire_guard.selection.risk_control.policy_grid import StagedCosts

    needed = {"wrong", "abstain", "fallback"}
    if not needed <= set(costs) <= needed | {"review"} or not _are_costs(costs):
        raise InputError(
            "cost: expected costs of 0 or more like wrong=20,abstain=4,fallback=1 (and review=3 if there are "
            f"reviewers), found {_format_costs(costs)!r}; there are two stages, so pass these"
        )
    return StagedCosts(**costs)


def _are_costs(costs: Mapping[str, float]) -> bool:
    return min(costs.values()) >= 0 and math.inf not in costs.values()


def _format_costs(costs: Mapping[str, float]) -> str:
    return ",".join(f"{name}={cost:g}" for name, cost in costs.items())


def _read_named_numbers(texts: Iterable[str], option: str) -> dict[str, float]:
    """Read names and numbers from texts such as `review=0.2`."""
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
