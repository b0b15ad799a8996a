"""The command `evaluate`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aspire_guard.errors import InputError

if TYPE_CHECKING:
    from aspire_guard.evaluators.correctness_rule import CorrectnessRule
    from aspire_guard.evaluators.self_evaluator import SelfEvaluator
    from aspire_trainers.correctness import Correctness
    from aspire_trainers.evaluation.baselines import Suite
    from aspire_trainers.evaluation.judged_answer import JudgedAnswer


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
            help="Write the scored answers, their labels and the baselines' scores here, for `calibrate`."
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="Another evaluator folder: answer with it too, and tell the difference."),
    ] = None,
    baselines: Annotated[
        bool,
        typer.Option(
            "--baselines", help="All five baselines, also on the pre-trained model's own answers."
        ),
    ] = False,
    samples: Annotated[
        int, typer.Option(min=2, help="Answers that --baselines draws a question.")
    ] = 10,
    nli: Annotated[
        str | None,
        typer.Option(
            help="NLI model (folder or hub id) for --baselines' semantic entropy; Rouge-L where left out."
        ),
    ] = None,
) -> None:
    """Answer labelled questions and compare ASPIRE's score with the paper's baselines on the same answers.

    Example: aspire-guard evaluate --data squad_dev.jsonl --evaluator my-evaluator --json

    By default with those that draw no samples: perplexity, Self-eval and P(True). The tokens in the table are
    those that a score takes beyond the answer itself.
    """
    from aspire_guard.cli.app import load_evaluator
    from aspire_guard.evaluators.evaluator_folder import (
        add_metrics,
        find_starter_folder,
        read_manifest,
    )
    from aspire_guard.jsonl import check_output_path
    from aspire_trainers.correctness import load_correctness
    from aspire_trainers.data.batching import take
    from aspire_trainers.data.dataset import load_dataset
    from aspire_trainers.evaluation.evaluation import (
        build_comparison,
        build_report,
        evaluate_pretrained,
    )
    from aspire_trainers.evaluation.judging import answer_records, check_answerable, grade_answers
    from aspire_trainers.evaluation.tables import print_comparison, print_report
    from aspire_trainers.run.progress import Progress

    records = take(load_dataset(data), limit, seed=0)
    own = read_manifest(evaluator or find_starter_folder()).correctness
    rule = _asked_rule(own, correctness, threshold)
    right = load_correctness(rule)
    if isinstance(
        read_manifest(evaluator or find_starter_folder()).provenance.get("answers"), dict
    ):
        typer.echo(
            "warning: this evaluator learned to judge the answers of a chain, and these are its base model's own; "
            "`score` and `report` measure it on the chain's",
            err=True,
        )
    suite = _suite(samples if baselines else None, nli)
    if answers is not None:
        check_output_path(answers, Path(data))
        answers.open("a").close()  # a wrong path should not cost all the answers
    judge, other = load_evaluator(evaluator), None if against is None else load_evaluator(against)
    # Before the first has answered, which takes its time.
    check_answerable(judge, records, suite, pretrained=baselines)
    if other is not None:
        check_answerable(other, records)
    judged = answer_records(judge, records, Progress("answering", "questions"), suite)
    judged = _graded_and_kept(judge, judged, right, answers)
    pretrained = None
    if baselines:
        pretrained = evaluate_pretrained(
            judge, records, right, suite, Progress("answering without θp", "questions")
        )
    report = build_report(judge, judged, suite, pretrained)
    result = report.model_dump(mode="json") | {"correctness": rule.model_dump()}
    if save:
        name = Path(data).stem if rule == own else f"{Path(data).stem} ({rule})"
        add_metrics(evaluator or find_starter_folder(), {name: result})
    comparison = None
    if other is not None:
        others = answer_records(other, records, Progress(f"answering with {against}", "questions"))
        comparison = build_comparison(
            (judge, judged), (other, grade_answers(others, right)), str(against)
        )
        result["against"] = comparison.model_dump(mode="json")
    if as_json:
        typer.echo(json.dumps(result))
        return
    print_report(report, str(rule))
    if comparison is not None:
        print_comparison(comparison)


def _asked_rule(
    own: CorrectnessRule, method: str | None, threshold: float | None
) -> CorrectnessRule:
    """The rule of the options, or else the evaluator's `own`, if that runs no code and reads no file."""
    if method is not None or threshold is not None:
        return own.from_name(method or own.method, threshold)
    if not own.is_measure:
        raise InputError(
            f"expected --correctness, since the evaluator's own rule is {own.method!r}, and what a folder names is not "
            f"run or read by itself; add --correctness {own.method} if you trust it"
        )
    return own


def _graded_and_kept(
    evaluator: SelfEvaluator,
    judged: Sequence[JudgedAnswer],
    correctness: Correctness,
    file: Path | None,
) -> list[JudgedAnswer]:
    """The answers with their grades, written to `file`; where grading fails, without any to a file beside it."""
    from aspire_trainers.evaluation.judging import grade_answers

    try:
        judged = grade_answers(judged, correctness)
    except InputError as error:  # answering took its time
        if file is None:
            raise
        kept = file.with_suffix(".ungraded.jsonl")
        _write(kept, evaluator, judged, are_graded=False)
        raise InputError(f"{error}; the answers are kept in {kept}") from error
    if file is not None:
        _write(file, evaluator, judged)
    return judged


def _write(
    file: Path, evaluator: SelfEvaluator, judged: Sequence[JudgedAnswer], *, are_graded: bool = True
) -> None:
    from aspire_trainers.evaluation.evaluation import format_scored_lines

    lines = format_scored_lines(evaluator, judged, are_graded=are_graded)
    file.write_text(
        "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8"
    )


def _suite(samples: int | None, nli: str | None) -> Suite:
    """The paper's five baselines on so many samples, or those that need none."""
    from aspire_trainers.evaluation.baselines import Suite
    from aspire_trainers.evaluation.baselines.entailment import RougeEntailment
    from aspire_trainers.evaluation.baselines.nli import NliEntailment

    if samples is not None:
        return Suite.paper(
            RougeEntailment() if nli is None else NliEntailment(nli), samples=samples
        )
    if nli is not None:
        raise InputError(
            "expected --baselines beside --nli, found --nli alone; add it, or leave --nli out"
        )
    return Suite.cheap()
