"""The command `train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aspire_guard.cli.options import ColumnsOption

if TYPE_CHECKING:
    from aspire_trainers.config import TrainingConfig
    from aspire_trainers.data.training_data import TrainingData


def train(
    output: Annotated[Path, typer.Option(help="The evaluator folder to write.")],
    train: Annotated[
        list[str] | None,
        typer.Option(help="QA records, or handbook:train. May be given several times."),
    ] = None,
    answers: Annotated[
        list[str] | None,
        typer.Option(
            help="Instead of --train: a chain's answers with references, as `sample` writes them, or with labels in "
            "`correct`, to judge these and not the model's own. May be given several times."
        ),
    ] = None,
    validation: Annotated[
        list[str] | None,
        typer.Option(
            help="More records, or more answers, to stop early, to choose α and to calibrate."
        ),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="Settings in TOML. Options given here win over it.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="smollm2-135m, a local folder or a hub id. By default smollm2-135m, or the model of --init-from."
        ),
    ] = None,
    init_from: Annotated[
        str | None,
        typer.Option(help="Continue from the θp and θs of this evaluator: a folder, or starter."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Use at most this many records of each training dataset."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random choice.")] = None,
    columns: ColumnsOption = None,
) -> None:
    """Train an evaluator: task tuning, answer sampling, self-evaluation.

    Example: aspire-guard train --model smollm2-135m --train qa.jsonl --limit 300 --output my-evaluator

    After a kill at any moment the same command continues where it stopped. It ends with the same weights if it has the
    same number of threads.
    """
    from aspire_guard.errors import InputError
    from aspire_guard.evaluators.evaluator_folder import read_manifest
    from aspire_guard.records.columns import Columns
    from aspire_trainers.config import TrainingConfig
    from aspire_trainers.data.training_data import TrainingData
    from aspire_trainers.pipeline import train_evaluator
    from aspire_trainers.run.distributed import get_processes

    if (train is None) == (answers is None):
        found = "neither" if train is None else "both"
        raise InputError(f"expected --train or --answers, found {found}; give one of them")
    config = TrainingConfig.load(recipe, model=model, init_from=init_from, limit=limit, seed=seed)
    load = TrainingData.load if train else TrainingData.load_answers
    data = load(train or answers or [], validation or [], config, columns=Columns.parse(columns))
    is_main = get_processes().is_main_process
    if is_main and config.alpha != 1:  # with α = 1 no likelihood counts
        _warn_of_missing_likelihoods(data)
    if is_main:
        _print_labels(data, config)
    folder = train_evaluator(config, data, output.resolve())
    if not is_main:
        return
    typer.echo(
        f"{output}: an evaluator for {read_manifest(folder).base_model.name}; read its README.md"
    )
    _warn_if_nothing_is_released(folder, config)


def _print_labels(data: TrainingData, config: TrainingConfig) -> None:
    from aspire_trainers.data.label_report import describe_labels, warn_of_long_answers

    rule = config.correctness.with_threshold(config.sampling.threshold)
    description = describe_labels(data, rule)
    if description is not None:
        typer.echo(description, err=True)
    warning = warn_of_long_answers(data, rule)
    if warning is not None:
        typer.echo(f"warning: {warning}", err=True)


def _warn_of_missing_likelihoods(data: TrainingData) -> None:
    from aspire_trainers.data.chain_answers import count_answers_without_likelihood

    given = data.get_chain_answers(data.validation) or []
    n = sum(len(answers.texts) for answers in given)
    missing = count_answers_without_likelihood(given)
    if 0 < missing < n:
        typer.echo(
            f"warning: {missing} of the {n} answers to the validation records have no log-likelihood, so the evaluator "
            "will go by its own model's likelihood of every answer; leave them out if it should go by the chain's",
            err=True,
        )


def _warn_if_nothing_is_released(folder: Path, config: TrainingConfig) -> None:
    from aspire_guard.evaluators.evaluator_folder import read_calibration
    from aspire_guard.selection.calibration import LEAST_RELEASED

    calibration = read_calibration(folder)
    if not any(threshold.releases for threshold in calibration.thresholds):
        typer.echo(
            f"warning: no threshold that releases {LEAST_RELEASED} answers or more of the {calibration.n} to the "
            f"validation records reached an accuracy of {config.target_accuracy:g} on them, so it releases nothing; "
            "train on more records, or calibrate it on answers that you have labelled",
            err=True,
        )
