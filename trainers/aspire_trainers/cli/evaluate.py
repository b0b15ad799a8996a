"""The command `evaluate`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aspire_guard.cli.options import ColumnsOption
from aspire_guard.errors import InputError

if TYPE_CHECKING:
    from aspire_guard.evaluators.correctness_rule import CorrectnessRule
    from aspire_guard.evaluators.evaluator_folder import Manifest
    from aspire_guard.evaluators.self_evaluator import SelfEvaluator
    from aspire_trainers.correctness import Correctness
    from aspire_trainers.evaluation.baselines import Suite
    from aspire_trainers.evaluation.judged_answer import JudgedAnswer


def evaluate(
    data: Annotated[str, typer.Option(help="QA records, or handbook:test.")],
    evaluator: Annotated[
        Path | None, typer.Option(help="Evaluator folder. By default the starter evaluator.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use at most this many records.")] = None,
    correctness: Annotated[
        str | None,
        typer.Option(
            help="The rule for right answers: rouge_l, exact_match, token_f1, containment, package.module:name (a "
            "function, or a runnable that judges) or labels.jsonl. By default the evaluator's own rule, if that is a "
            "measure."
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="γ: the least F1 of a right answer, for rouge_l and token_f1."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object and nothing else.")
    ] = False,
    save: Annotated[bool, typer.Option(help="Add the result to the evaluator's card.")] = False,
    answers: Annotated[
        Path | None,
        typer.Option(
            help="Write the scored answers, their labels and the baselines' scores to this file, for `calibrate`."
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            help="Another evaluator folder: answer with it too, and report the difference."
        ),
    ] = None,
    baselines: Annotated[
        bool,
        typer.Option(
            "--baselines",
            help="Use all five baselines, also on the pre-trained model's own answers.",
        ),
    ] = False,
    samples: Annotated[
        int, typer.Option(min=2, help="Answers that --baselines draws for each question.")
    ] = 10,
    nli: Annotated[
        str | None,
        typer.Option(
            help="NLI model (folder or hub id) for the semantic entropy of --baselines. By default Rouge-L."
        ),
    ] = None,
    columns: ColumnsOption = None,
) -> None:
    """Answer labelled questions and compare ASPIRE's score with the paper's baselines on the same answers.

    Example: aspire-guard evaluate --data squad_dev.jsonl --evaluator my-evaluator --json

    By default these are the baselines that draw no samples: perplexity, Self-eval and P(True). The tokens in the table
    are those that a score takes beyond the answer itself.
    """
    from aspire_guard.cli.app import load_evaluator
    from aspire_guard.evaluators.evaluator_folder import (
        add_metrics,
        find_starter_folder,
        read_manifest,
    )
    from aspire_guard.records.columns import Columns
    from aspire_trainers.correctness import load_correctness
    from aspire_trainers.data.batching import sample_records
    from aspire_trainers.data.dataset import load_dataset
    from aspire_trainers.evaluation.judging import answer_records, check_answerable, grade_answers
    from aspire_trainers.evaluation.reports import (
        build_comparison,
        build_report,
        evaluate_pretrained,
    )
    from aspire_trainers.evaluation.tables import print_comparison, print_report
    from aspire_trainers.run.progress import Progress

    records = sample_records(load_dataset(data, Columns.parse(columns)), limit, seed=0)
    folder = evaluator or find_starter_folder()
    manifest = read_manifest(folder)
    rule = _choose_rule(manifest.correctness, correctness, threshold)
    grader = load_correctness(rule)
    _warn_if_fitted_to_a_chain(manifest)
    suite = _choose_suite(samples if baselines else None, nli)
    if answers is not None:
        _check_answers_file(answers, Path(data))

    loaded = load_evaluator(evaluator)
    other = None if against is None else load_evaluator(against)
    # Both are checked before the first evaluator answers, because answering takes long.
    check_answerable(loaded, records, suite, pretrained=baselines)
    if other is not None:
        check_answerable(other, records)

    judged = answer_records(loaded, records, Progress("answering", "questions"), suite)
    judged = _grade_and_write(loaded, judged, grader, answers)
    pretrained = None
    if baselines:
        progress = Progress("answering without θp", "questions")
        pretrained = evaluate_pretrained(loaded, records, grader, suite, progress)
    report = build_report(loaded, judged, suite, pretrained)
    result = report.model_dump(mode="json") | {"correctness": rule.model_dump()}
    if save:
        dataset = Path(data).stem
        name = dataset if rule == manifest.correctness else f"{dataset} ({rule})"
        add_metrics(folder, {name: result})

    comparison = None
    if other is not None:
        progress = Progress(f"answering with {against}", "questions")
        graded = grade_answers(answer_records(other, records, progress), grader)
        comparison = build_comparison((loaded, judged), (other, graded), str(against))
        result["against"] = comparison.model_dump(mode="json")

    if as_json:
        typer.echo(json.dumps(result))
        return
    print_report(report, str(rule))
    if comparison is not None:
        print_comparison(comparison)


def _choose_rule(
    evaluator_rule: CorrectnessRule, method: str | None, threshold: float | None
) -> CorrectnessRule:
    """Return the rule of the options, or else the evaluator's, if that runs no code and reads no file."""
    if method is not None or threshold is not None:
        return evaluator_rule.from_name(method or evaluator_rule.method, threshold)
    from aspire_guard.evaluators.correctness_rule import LABELS

    if evaluator_rule.method == LABELS:
        raise InputError(
            "expected --correctness, since the evaluator was trained on labels, found none; pass a rule such as "
            "containment"
        )
    if not evaluator_rule.is_measure:
        raise InputError(
            f"expected --correctness, since the evaluator's own rule is {evaluator_rule.method!r}, and what a folder "
            f"names is not run or read by itself; add --correctness {evaluator_rule.method} if you trust it"
        )
    return evaluator_rule


def _warn_if_fitted_to_a_chain(manifest: Manifest) -> None:
    if isinstance(manifest.provenance.get("answers"), dict):
        typer.echo(
            "warning: this evaluator learned to judge the answers of a chain, and these are its base model's own; "
            "`score` and `report` measure it on the chain's",
            err=True,
        )


def _choose_suite(samples: int | None, nli: str | None) -> Suite:
    """Return the paper's five baselines with this many samples, or if it is None the baselines that draw no samples."""
    from aspire_trainers.evaluation.baselines import Suite
    from aspire_trainers.evaluation.baselines.entailment import RougeEntailment
    from aspire_trainers.evaluation.baselines.nli import NliEntailment

    if samples is not None:
        entailment = RougeEntailment() if nli is None else NliEntailment(nli)
        return Suite.paper(entailment, samples=samples)
    if nli is not None:
        raise InputError(
            "expected --baselines with --nli, found --nli alone; add it, or leave --nli out"
        )
    return Suite.cheap()


def _check_answers_file(file: Path, data: Path) -> None:
    """Check that the file can be written, since a wrong path should not cost all the answers."""
    from aspire_guard.jsonl import check_output_path

    check_output_path(file, data)
    file.open("a").close()


def _grade_and_write(
    evaluator: SelfEvaluator,
    judged: Sequence[JudgedAnswer],
    correctness: Correctness,
    file: Path | None,
) -> list[JudgedAnswer]:
    """Grade the answers and write them to `file`.

    If grading fails, the answers are written without grades to a file next to it, because answering takes long.
    """
    from aspire_trainers.evaluation.judging import grade_answers

    try:
        judged = grade_answers(judged, correctness)
    except InputError as error:
        if file is None:
            raise
        ungraded = file.with_suffix(".ungraded.jsonl")
        _write_answers(ungraded, evaluator, judged, are_graded=False)
        raise InputError(f"{error}; the answers are kept in {ungraded}") from error
    if file is not None:
        _write_answers(file, evaluator, judged)
    return judged


def _write_answers(
    file: Path, evaluator: SelfEvaluator, judged: Sequence[JudgedAnswer], *, are_graded: bool = True
) -> None:
    from aspire_guard.files import write_text
    from aspire_trainers.evaluation.reports import format_scored_lines

    lines = format_scored_lines(evaluator, judged, are_graded=are_graded)
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    write_text(file, text)
