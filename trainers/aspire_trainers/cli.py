"""The trainers' subcommands of `aspire-guard`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from aspire_guard.evaluators.correctness_rule import CorrectnessRule
    from aspire_trainers.evaluate import Report


def train(
    output: Annotated[Path, typer.Option(help="The evaluator folder to write.")],
    train: Annotated[
        list[str] | None, typer.Option(help="JSONL of QA records, or handbook:train; may be given several times.")
    ] = None,
    answers: Annotated[
        list[str] | None,
        typer.Option(
            help="Or: JSONL of answers that a chain gave, as `sample` writes it, to judge these and not the model's "
            "own; may be given several times."
        ),
    ] = None,
    validation: Annotated[
        list[str] | None,
        typer.Option(help="More records, or more answers, to stop early, to choose α and to calibrate."),
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="Settings in TOML; options given here win over it.")] = None,
    model: Annotated[str | None, typer.Option(help="smollm2-135m, a local folder or a hub id.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use at most so many records of each dataset.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of every random choice.")] = None,
) -> None:
    """Train an evaluator: task tuning, answer sampling, self-evaluation.

    Example: aspire-guard train --model smollm2-135m --train qa.jsonl --limit 300 --output my-evaluator

    After a kill at any moment the same command goes on where it stopped and ends with the same weights.
    """
    from aspire_guard.errors import InputError
    from aspire_guard.evaluators.folder import read_calibration
    from aspire_trainers.config import TrainingConfig
    from aspire_trainers.pipeline import train_evaluator
    from aspire_trainers.processes import processes
    from aspire_trainers.training_data import TrainingData

    if (train is None) == (answers is None):
        found = "neither" if train is None else "both"
        raise InputError(f"expected --train or --answers, found {found}; give one of them")
    config = TrainingConfig.load(recipe, model=model, limit=limit, seed=seed)
    load = TrainingData.load if train else TrainingData.load_answers
    data = load(train or answers or [], validation or [], config)
    folder = train_evaluator(config, data, output)
    if not processes().is_main_process:
        return
    typer.echo(f"{folder}: an evaluator for {config.model}; read its README.md")
    if read_calibration(folder).target_accuracy is None:
        typer.echo(
            f"warning: no threshold reached an accuracy of {config.target_accuracy:g} on the validation records, "
            "so it releases nothing; train on more records, or give a policy a threshold of your own",
            err=True,
        )


def evaluate(
    data: Annotated[str, typer.Option(help="JSONL of QA records, or handbook:test.")],
    evaluator: Annotated[
        Path | None, typer.Option(help="Evaluator folder; the starter evaluator where left out.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use at most so many records.")] = None,
    correctness: Annotated[
        str | None,
        typer.Option(
            help="Which answers are right: rouge_l, exact_match, token_f1, package.module:name (a function, or a "
            "runnable that judges) or labels.jsonl; the evaluator's own rule where left out."
        ),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="γ: the least F1 of a right answer, for rouge_l and token_f1.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    save: Annotated[bool, typer.Option(help="Add the result to the evaluator's card.")] = False,
    answers: Annotated[
        Path | None, typer.Option(help="Write the scored answers with their labels here, for `calibrate`.")
    ] = None,
) -> None:
    """Answer labelled questions and compare ASPIRE's score with perplexity and P(True) on the same answers.

    Example: aspire-guard evaluate --data squad_dev.jsonl --evaluator my-evaluator --json
    """
    from aspire_guard.cli import load_evaluator
    from aspire_guard.evaluators.correctness_rule import CorrectnessRule
    from aspire_guard.evaluators.folder import add_metrics, read_manifest
    from aspire_guard.evaluators.starter import starter_folder
    from aspire_trainers.batches import take
    from aspire_trainers.correctness import correctness_of
    from aspire_trainers.dataset import load_dataset
    from aspire_trainers.evaluate import answer_records, scored_lines
    from aspire_trainers.evaluate import evaluate as compare
    from aspire_trainers.progress import Progress

    records = take(load_dataset(data), limit, seed=0)
    own = read_manifest(evaluator or starter_folder()).correctness
    asked = correctness is not None or threshold is not None
    rule = CorrectnessRule.named(correctness or own.method, threshold) if asked else own
    right = correctness_of(rule)
    judge = load_evaluator(evaluator)
    judged = answer_records(judge, records, right, Progress("answering", "questions"))
    if answers is not None:
        lines = (json.dumps(line, ensure_ascii=False) + "\n" for line in scored_lines(judge, judged))
        answers.write_text("".join(lines), encoding="utf-8")
    report = compare(judge, judged, Progress("asking for P(True)", "questions"))
    result = report.model_dump(mode="json") | {"correctness": rule.model_dump()}
    if save:
        name = Path(data).stem if rule == own else f"{Path(data).stem} ({rule})"
        add_metrics(evaluator or starter_folder(), {name: result})
    if as_json:
        typer.echo(json.dumps(result))
    else:
        _print_report(report, rule)


def _print_report(report: Report, rule: CorrectnessRule) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    released, withheld = (
        "–" if share is None else f"{share:.1%}" for share in (report.selective_accuracy, report.wrong_withheld)
    )
    console.print(f"{report.n} questions · accuracy of all answers {report.accuracy:.1%} ({rule})")
    console.print(
        f"released at the evaluator's threshold: coverage {report.coverage:.1%}, accuracy {released}; "
        f"of the wrong answers {withheld} withheld"
    )
    if report.unanswerable is not None:
        without = report.unanswerable
        console.print(
            f"{without.n} of them without a reference: {without.declined:.1%} declined, "
            f"{without.withheld:.1%} answered and withheld, {without.released:.1%} answered and released"
        )
    table = Table("score", "AUROC", "AUACC", title="bootstrap 95 % intervals")
    for name, scores in report.scores.items():
        cells = (
            "–" if e is None else f"{100 * e.value:.1f} [{100 * e.low:.1f}, {100 * e.high:.1f}]"
            for e in (scores.auroc, scores.auacc)
        )
        table.add_row(name, *cells)
    console.print(table)
