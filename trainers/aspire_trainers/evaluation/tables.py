"""The paper's table on a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Column, Table

from aspire_trainers.evaluation.evaluation import Comparison, Report
from aspire_trainers.evaluation.score_reports import Block, Differences, Estimate, ScoreReport


def print_report(report: Report, rule: str) -> None:
    """Accuracy by the `rule` of what is right, what the threshold buys, and a table a block of answers."""
    console = Console()
    released, withheld = (
        "–" if share is None else f"{share:.1%}"
        for share in (report.selective_accuracy, report.wrong_withheld)
    )
    console.print(
        f"{report.n} questions · accuracy of all answers {_cell(report.accuracy)} ({rule})"
    )
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
    _print_block(
        console, f"\nanswers under θp ({report.answer_tokens:.0f} tokens each)", report.scores
    )
    if report.pretrained is not None:
        _print_block(
            console, f"answers without θp: {_answers(report.pretrained)}", report.pretrained.scores
        )
    console.print(
        "In %, with bootstrap 95 % intervals; tokens: what a score takes beyond the answer.",
        soft_wrap=True,
    )


def print_comparison(comparison: Comparison) -> None:
    """The other evaluator's figures, and how far the first is ahead."""
    console = Console()
    _print_block(console, f"{comparison.evaluator}: {_answers(comparison)}", comparison.scores)
    console.print(
        f"difference, paired bootstrap: {_differences(comparison.difference)}", soft_wrap=True
    )


def _answers(block: Block) -> str:
    return f"accuracy {_cell(block.accuracy)} ({block.answer_tokens:.0f} tokens each)"


def _print_block(console: Console, title: str, scores: Mapping[str, ScoreReport]) -> None:
    console.print(title, soft_wrap=True)
    table = Table(Column("score", no_wrap=True), "AUROC", "AUACC", "AURC", "tokens", box=SIMPLE)
    for name, score in scores.items():
        metrics = (_cell(estimate) for estimate in (score.auroc, score.auacc, score.aurc))
        table.add_row(name, *metrics, f"{score.cost.tokens:.0f}")
    console.print(table)


def _differences(difference: Differences) -> str:
    named = {
        "accuracy": difference.accuracy,
        "AUROC": difference.auroc,
        "AUACC": difference.auacc,
        "AURC": difference.aurc,
    }
    return " · ".join(f"{name} {_cell(estimate, '+.1f')}" for name, estimate in named.items())


def _cell(estimate: Estimate | None, form: str = ".1f") -> str:
    if estimate is None:
        return "–"
    value, low, high = (f"{100 * x:{form}}" for x in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"
