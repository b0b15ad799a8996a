"""The command `train-judge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aspire_guard.cli.options import ColumnsOption


def train_judge(
    data: Annotated[list[Path], typer.Argument(help="Files of rated answers.")],
    output: Annotated[Path, typer.Option(help="The evaluator folder to write.")],
    recipe: Annotated[
        Path | None, typer.Option(help="Settings in TOML. Options given here win over it.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="smollm2-135m, a local folder or a hub id.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the answers. By default one.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random choice.")] = None,
    columns: ColumnsOption = None,
) -> None:
    """Train a judge for the answers of other models: a LoRA that reads the question, the context and the answer.

    Example: aspire-guard train-judge made.jsonl rated.jsonl --output my-judge

    A line holds question, context, answer and correct (true or false), and may label its sentences, as `make-answers`
    writes it. After a kill at any moment the same command continues where it stopped. Fit the evaluator to answers of
    your chain with `aspire-guard fit`. It can't answer questions itself, which `train` teaches.
    """
    from aspire_guard.records.columns import Columns
    from aspire_trainers import judge_training
    from aspire_trainers.config import JudgeConfig
    from aspire_trainers.run.distributed import get_processes

    config = JudgeConfig.load(recipe, model=model, epochs=epochs, seed=seed)
    judge_training.train_judge(data, output.resolve(), config, columns=Columns.parse(columns))
    if get_processes().is_main_process:
        typer.echo(f"{output}: a judge on {config.model}; read its README.md, then fit it")
