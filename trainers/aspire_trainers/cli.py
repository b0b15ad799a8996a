"""The trainers' subcommands of `aspire-guard`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from aspire_trainers.baselines import Suite


def train(
    train: Annotated[
        list[str], typer.Option(help="JSONL of QA records, or handbook:train; may be given several times.")
    ],
    output: Annotated[Path, typer.Option(help="The evaluator folder to write.")],
    validation: Annotated[
        list[str] | None, typer.Option(help="More records to stop early, to choose α and to calibrate.")
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
    from aspire_guard.evaluators.folder import read_calibration
    from aspire_trainers.config import TrainingConfig
    from aspire_trainers.pipeline import TrainingData, train_evaluator

    config = TrainingConfig.load(recipe, model=model, limit=limit, seed=seed)
    data = TrainingData.load(train, validation or [], config)
    folder = train_evaluator(config, data, output)
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
    threshold: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="γ: the least Rouge-L F1 of a right answer.")
    ] = 0.7,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    save: Annotated[bool, typer.Option(help="Add the result to the evaluator's card.")] = False,
    answers: Annotated[
        Path | None, typer.Option(help="Write the scored answers with their labels here, for `calibrate`.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Another evaluator folder: answer with it too, and tell the difference.")
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="All five baselines, also on the pre-trained model's own answers.")
    ] = False,
    samples: Annotated[int, typer.Option(min=2, help="Answers that --baselines draws a question.")] = 10,
    nli: Annotated[
        str | None,
        typer.Option(help="NLI model (folder or hub id) for --baselines' semantic entropy; Rouge-L where left out."),
    ] = None,
) -> None:
    """Answer labelled questions and compare ASPIRE's score with the paper's baselines on the same answers.

    Example: aspire-guard evaluate --data squad_dev.jsonl --evaluator my-evaluator --json

    By default with those that draw no samples: perplexity, Self-eval and P(True). The tokens in the table are
    those that a score takes beyond the answer itself.
    """
    from aspire_guard.cli import load_evaluator
    from aspire_guard.evaluators.folder import add_metrics
    from aspire_guard.evaluators.starter import starter_folder
    from aspire_trainers.batches import take
    from aspire_trainers.comparison_table import print_comparison, print_report
    from aspire_trainers.correctness import RougeL
    from aspire_trainers.dataset import load_dataset
    from aspire_trainers.evaluate import answer_records, compare, evaluate_pretrained, scored_lines
    from aspire_trainers.evaluate import evaluate as report_on
    from aspire_trainers.progress import Progress

    records = take(load_dataset(data), limit, seed=0)
    suite = _suite(samples if baselines else None, nli)
    judge, other = load_evaluator(evaluator), None if against is None else load_evaluator(against)
    correctness = RougeL(threshold)
    judged = answer_records(judge, records, correctness, Progress("answering", "questions"), suite)
    if answers is not None:
        lines = (json.dumps(line, ensure_ascii=False) + "\n" for line in scored_lines(judge, judged))
        answers.write_text("".join(lines), encoding="utf-8")
    pretrained = None
    if baselines:
        progress = Progress("answering without θp", "questions")
        pretrained = evaluate_pretrained(judge, records, correctness, suite, progress)
    report = report_on(judge, judged, suite, pretrained)
    result = report.model_dump(mode="json")
    if save:
        add_metrics(evaluator or starter_folder(), {Path(data).stem: result})
    comparison = None
    if other is not None:
        others = answer_records(other, records, correctness, Progress(f"answering with {against}", "questions"))
        comparison = compare((judge, judged), (other, others), str(against))
        result["against"] = comparison.model_dump(mode="json")
    if as_json:
        typer.echo(json.dumps(result))
        return
    print_report(report)
    if comparison is not None:
        print_comparison(comparison)


def _suite(samples: int | None, nli: str | None) -> Suite:
    """The paper's five baselines on so many samples, or those that need none."""
    from aspire_guard.errors import InputError
    from aspire_trainers.baselines import Suite
    from aspire_trainers.baselines.entailment import RougeEntailment
    from aspire_trainers.baselines.nli import NliEntailment

    if samples is not None:
        return Suite.paper(RougeEntailment() if nli is None else NliEntailment(nli), samples=samples)
    if nli is not None:
        raise InputError("expected --baselines beside --nli, found --nli alone; add it, or leave --nli out")
    return Suite.cheap()
