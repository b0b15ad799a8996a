"""The trainers' subcommands of `aspire-guard`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from aspire_guard.evaluators.correctness_rule import CorrectnessRule
    from aspire_trainers.baselines import Suite


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

    After a kill at any moment the same command goes on where it stopped, and ends with the same weights where it has
    the same number of threads.
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
            "runnable that judges) or labels.jsonl; where left out the evaluator's own rule, if that is a measure."
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
    from aspire_guard.evaluators.folder import add_metrics, read_manifest
    from aspire_guard.evaluators.starter import starter_folder
    from aspire_trainers.batches import take
    from aspire_trainers.comparison_table import print_comparison, print_report
    from aspire_trainers.correctness import correctness_of
    from aspire_trainers.dataset import load_dataset
    from aspire_trainers.evaluate import answer_records, compare, evaluate_pretrained, scored_lines
    from aspire_trainers.evaluate import evaluate as report_on
    from aspire_trainers.progress import Progress

    records = take(load_dataset(data), limit, seed=0)
    own = read_manifest(evaluator or starter_folder()).correctness
    rule = _asked_rule(own, correctness, threshold)
    right = correctness_of(rule)
    suite = _suite(samples if baselines else None, nli)
    if answers is not None:
        answers.touch()  # a wrong path should not cost all the answers
    judge, other = load_evaluator(evaluator), None if against is None else load_evaluator(against)
    judged = answer_records(judge, records, right, Progress("answering", "questions"), suite)
    if answers is not None:
        lines = (json.dumps(line, ensure_ascii=False) + "\n" for line in scored_lines(judge, judged))
        answers.write_text("".join(lines), encoding="utf-8")
    pretrained = None
    if baselines:
        pretrained = evaluate_pretrained(judge, records, right, suite, Progress("answering without θp", "questions"))
    report = report_on(judge, judged, suite, pretrained)
    result = report.model_dump(mode="json") | {"correctness": rule.model_dump()}
    if save:
        name = Path(data).stem if rule == own else f"{Path(data).stem} ({rule})"
        add_metrics(evaluator or starter_folder(), {name: result})
    comparison = None
    if other is not None:
        others = answer_records(other, records, right, Progress(f"answering with {against}", "questions"))
        comparison = compare((judge, judged), (other, others), str(against))
        result["against"] = comparison.model_dump(mode="json")
    if as_json:
        typer.echo(json.dumps(result))
        return
    print_report(report, str(rule))
    if comparison is not None:
        print_comparison(comparison)


def _asked_rule(own: CorrectnessRule, method: str | None, threshold: float | None) -> CorrectnessRule:
    """The rule of the options, or else the evaluator's `own`, if that runs no code and reads no file."""
    from aspire_guard.errors import InputError

    if method is not None or threshold is not None:
        return own.named(method or own.method, threshold)
    if not own.is_measure:
        raise InputError(
            f"expected --correctness, since the evaluator's own rule is {own.method!r}, and what a folder names is not "
            f"run or read by itself; add --correctness {own.method} if you trust it"
        )
    return own


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
