"""The paper's table on a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Column, Table

from aspire_trainers.evaluation.reports import Comparison, Report, UnanswerableReport
from aspire_trainers.evaluation.score_reports import Differences, Estimate, ScoreReport, ScoreTable


def print_report(report: Report, rule: str) -> None:
    """Print the accuracy, the effect of the threshold, and a table for each set of answers.

    Args:
        rule: the rule by which answers count as right.
    """
    console = Console()
    console.print(
        f"{report.n} questions · accuracy of all answers {_format_estimate(report.accuracy)} ({rule})"
    )
    released = _format_share(report.selective_accuracy)
    withheld = _format_share(report.wrong_withheld)
    console.print(
        f"released at the evaluator's threshold: coverage {report.coverage:.1%}, accuracy {released}; "
        f"of the wrong answers {withheld} withheld"
    )
    if report.unanswerable is not None:
        console.print(_format_unanswerable(report.unanswerable))
    title = f"\nanswers under θp ({report.answer_tokens:.0f} tokens each)"
    _print_scores(console, title, report.scores)
    if report.pretrained is not None:
        title = f"answers without θp: {_format_answers(report.pretrained)}"
        _print_scores(console, title, report.pretrained.scores)
    console.print(
        "In %, with bootstrap 95 % intervals; tokens: what a score takes beyond the answer.",
        soft_wrap=True,
    )


def print_comparison(comparison: Comparison) -> None:
    """Print the other evaluator's figures, and how far the first is ahead."""
    console = Console()
    title = f"{comparison.evaluator}: {_format_answers(comparison)}"
    _print_scores(console, title, comparison.scores)
    difference = _format_differences(comparison.difference)
    console.print(f"difference, paired bootstrap: {difference}", soft_wrap=True)


def _print_scores(console: Console, title: str, scores: Mapping[str, ScoreReport]) -> None:
    console.print(title, soft_wrap=True)
    table = Table(Column("score", no_wrap=True), "AUROC", "AUACC", "AURC", "tokens", box=SIMPLE)
    for name, score in scores.items():
        metrics = (_format_estimate(metric) for metric in (score.auroc, score.auacc, score.aurc))
        table.add_row(name, *metrics, f"{score.cost.tokens:.0f}")
    console.print(table)


def _format_unanswerable(report: UnanswerableReport) -> str:
    return (
        f"{report.n} of them without a reference: {report.declined:.1%} declined, "
        f"{report.withheld:.1%} answered and withheld, {report.released:.1%} answered and released"
    )


def _format_answers(table: ScoreTable) -> str:
    return f"accuracy {_format_estimate(table.accuracy)} ({table.answer_tokens:.0f} tokens each)"


def _format_differences(difference: Differences) -> str:
    metrics = {
        "accuracy": difference.accuracy,
        "AUROC": difference.auroc,
        "AUACC": difference.auacc,
        "AURC": difference.aurc,
    }
    return " · ".join(f"{name} {_format_estimate(each, '+.1f')}" for name, each in metrics.items())


def _format_estimate(estimate: Estimate | None, form: str = ".1f") -> str:
    """Format an estimate in per cent, with its interval."""
    if estimate is None:
        return "–"
    figures = (estimate.value, estimate.low, estimate.high)
    value, low, high = (f"{100 * figure:{form}}" for figure in figures)
    return f"{value} [{low}, {high}]"


def _format_share(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"
