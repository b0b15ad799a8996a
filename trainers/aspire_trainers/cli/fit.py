"""The command `fit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aspire_guard.cli.options import ColumnsOption

if TYPE_CHECKING:
    from aspire_guard.evaluators.self_evaluator import SelfEvaluator
    from aspire_trainers.stages.rule_reports import FileReport


def fit(
    data: Annotated[list[Path], typer.Argument(help="Files of rated answers.")],
    output: Annotated[Path, typer.Option(help="The evaluator folder to write.")],
    evaluator: Annotated[
        Path | None, typer.Option(help="The evaluator to fit. By default the starter for chains.")
    ] = None,
    target_accuracy: Annotated[
        float, typer.Option(min=0.01, max=1, help="The wanted share of right released answers.")
    ] = 0.9,
    calibrate_on: Annotated[
        str,
        typer.Option(
            help="The names of the files that the confidence and the threshold are fitted on, with commas between "
            "them. By default all files."
        ),
    ] = "",
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, help="Draw whole groups until there are this many answers of each file."
        ),
    ] = None,
    attribution: Annotated[
        str, typer.Option(help="The sources and licences of the answers, for the evaluator's card.")
    ] = "",
    signals: Annotated[
        Path | None,
        typer.Option(
            help="A file that keeps the signals, so that another run does not measure them again."
        ),
    ] = None,
    columns: ColumnsOption = None,
) -> None:
    """Fit an evaluator to rated answers of a chain, without training its model.

    Example: aspire-guard fit rated.jsonl --output my-evaluator

    A line holds question, context, answer and correct (true or false). The weights of the signals, the confidence, the
    threshold and the domain are fitted. The printed figures are those of answers that the weights were not fitted on.
    """
    from aspire_guard.records.columns import Columns
    from aspire_trainers.fitting import FitConfig, fit_evaluator

    names = [name.strip() for name in calibrate_on.split(",") if name.strip()]
    config = FitConfig(
        target_accuracy=target_accuracy,
        calibrate_on=tuple(names),
        limit=limit,
        attribution=attribution,
    )
    reports = fit_evaluator(
        data,
        output,
        config,
        evaluator=_load(evaluator),
        signal_file=signals,
        columns=Columns.parse(columns),
    )
    for report in reports:
        typer.echo(_describe(report))
    typer.echo(f"{output}: the fitted evaluator")


def _load(folder: Path | None) -> SelfEvaluator:
    from aspire_guard.evaluators.self_evaluator import SelfEvaluator

    return SelfEvaluator.for_chains() if folder is None else SelfEvaluator.from_pretrained(folder)


def _describe(report: FileReport) -> str:
    aurocs = []
    for name, ranking in report.scores.items():
        if ranking.auroc is not None:
            aurocs.append(f"{name} {ranking.auroc.value:.1%}")
    released = f"{report.coverage:.1%} released"
    if report.selective_accuracy is not None:
        released += f", {report.selective_accuracy:.1%} of them right"
    figures = f"{report.n:,} answers, {report.accuracy.value:.1%} right; {released}"
    return f"{report.file}: {figures}; AUROC: {', '.join(aurocs)}"
