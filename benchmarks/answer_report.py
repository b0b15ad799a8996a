"""The figures of `real_answers.py`, from scored answers to tables in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from given_answers import Key, ScoredAnswer

from aspire_guard.errors import InputError
from aspire_guard.selection.metrics import (
    Interval,
    Metric,
    accuracy,
    auacc,
    auroc,
    bootstrap_difference,
    bootstrap_interval,
    coverage_and_accuracy,
    ece,
)

ASPIRE, OVERLAP, P_TRUE = "aspire", "word overlap", "P(True)"
ONE_ALPHA = "g, one alpha"
# The name of each score in the tables, and its key.
SCORES = {
    ASPIRE: "selection_score",
    ONE_ALPHA: "aspire",
    "log-likelihood": "log_likelihood",
    "P(z_c)": "p_correct",
    P_TRUE: "log_p_true",
    OVERLAP: "word_overlap",
    "length": "negative_length",
}
RIVALS = (OVERLAP, "log-likelihood")
MIN_ANSWERS_OF_MODEL = 20
RESAMPLES = 1000
_DASH = "–"


@dataclass(frozen=True)
class ScoreRow:
    """The ranking by one score, or the difference of two: its name, the number of answers, AUROC and AUACC.

    A metric is None if it is undefined on these answers.
    """

    name: str
    n: int
    auroc: Interval | None
    auacc: Interval | None


@dataclass(frozen=True)
class ModelRow:
    """A model, the number of its answers, the share of right ones, and the AUROC of each score that they all have."""

    model: str
    n: int
    accuracy: float
    auroc: dict[str, float]


@dataclass(frozen=True)
class Report:
    """The figures of one file, or of all files.

    Attributes:
        name: the name of the file.
        n: the number of answers that fit the window.
        too_long: the number of answers that don't fit.
        without_context: the number of answers, of those that fit, that have no context.
        groups: the number of groups of the answers that fit.
        accuracy: the share of right answers.
        threshold: the threshold of the evaluator.
        coverage: the share of answers that the threshold releases.
        selective_accuracy: the share of right answers among the released, or None if no answer is released.
        ece: the expected calibration error of the confidence.
        scores: a row for each score.
        differences: "aspire" minus other scores.
        models: a row for each model with enough answers.
    """

    name: str
    n: int
    too_long: int
    without_context: int
    groups: int
    accuracy: float
    threshold: float
    coverage: float
    selective_accuracy: float | None
    ece: float
    scores: list[ScoreRow]
    differences: list[ScoreRow]
    models: list[ModelRow]


def make_reports(answers: Sequence[ScoredAnswer], threshold: float) -> list[Report]:
    """Return a report for each file, and one for all files if there are several."""
    by_file: dict[str, list[ScoredAnswer]] = {}
    for answer in answers:
        by_file.setdefault(answer.given.file, []).append(answer)
    reports = [make_report(name, own, threshold) for name, own in by_file.items()]
    if len(by_file) > 1:
        reports.append(make_report("All files", answers, threshold))
    return reports


def make_report(name: str, answers: Sequence[ScoredAnswer], threshold: float) -> Report:
    """Compute the figures of these answers.

    Raises:
        InputError: no answer fits the window.
    """
    fitting = [answer for answer in answers if answer.fits]
    correct = [answer.given.correct for answer in fitting]
    confidence = [answer.scores["confidence"] for answer in fitting]
    released = coverage_and_accuracy(confidence, correct, threshold)
    return Report(
        name=name,
        n=len(fitting),
        too_long=len(answers) - len(fitting),
        without_context=sum(answer.given.exchange.context is None for answer in fitting),
        groups=len({answer.group for answer in fitting}),
        accuracy=accuracy(correct),
        threshold=threshold,
        coverage=released.coverage,
        selective_accuracy=released.accuracy,
        ece=ece(confidence, correct),
        scores=[rank_answers(name, fitting) for name in list_scores(fitting)],
        differences=[compare_with(rival, fitting) for rival in RIVALS],
        models=list(report_models(fitting)),
    )


def list_scores(answers: Sequence[ScoredAnswer]) -> list[str]:
    """Return the names of the table's scores: all but P(True), which is left out if nobody asked for it."""
    found: set[str] = set()
    for answer in answers:
        found |= answer.scores.keys()
    optional = (P_TRUE, ONE_ALPHA)
    return [name for name, key in SCORES.items() if name not in optional or key in found]


def select_answers(answers: Sequence[ScoredAnswer], *names: str) -> list[ScoredAnswer]:
    """Return the answers that have all of these scores."""
    wanted = {SCORES[name] for name in names}
    return [answer for answer in answers if wanted <= answer.scores.keys()]


def rank_answers(name: str, answers: Sequence[ScoredAnswer]) -> ScoreRow:
    """Return the row of a score, over the answers that have it."""
    chosen = select_answers(answers, name)

    def estimate(metric: Metric) -> Interval:
        scores, correct = _pair(name, chosen)
        groups = _list_groups(chosen)
        return bootstrap_interval(metric, scores, correct, questions=groups, resamples=RESAMPLES)

    return _make_row(name, len(chosen), estimate)


def compare_with(rival: str, answers: Sequence[ScoredAnswer]) -> ScoreRow:
    """Return how far "aspire" is ahead of another score, over the answers that have both."""
    chosen = select_answers(answers, ASPIRE, rival)

    def estimate(metric: Metric) -> Interval:
        return bootstrap_difference(
            metric,
            _pair(ASPIRE, chosen),
            _pair(rival, chosen),
            questions=_list_groups(chosen),
            resamples=RESAMPLES,
        )

    return _make_row(f"{ASPIRE} − {rival}", len(chosen), estimate)


def _make_row(name: str, n: int, estimate: Callable[[Metric], Interval]) -> ScoreRow:
    return ScoreRow(name, n, _try_estimate(estimate, auroc), _try_estimate(estimate, auacc))


def _try_estimate(estimate: Callable[[Metric], Interval], metric: Metric) -> Interval | None:
    """Return the estimate, or None if the metric is undefined."""
    try:
        return estimate(metric)
    except InputError:
        return None


def _pair(name: str, answers: Sequence[ScoredAnswer]) -> tuple[list[float], list[bool]]:
    """Return a score and the label of each answer."""
    scores = [answer.scores[SCORES[name]] for answer in answers]
    return scores, [answer.given.correct for answer in answers]


def _list_groups(answers: Sequence[ScoredAnswer]) -> list[Key]:
    return [answer.group for answer in answers]


def report_models(answers: Sequence[ScoredAnswer]) -> Iterator[ModelRow]:
    """Yield a row for each model with enough answers, of which some are right and some are wrong."""
    by_model: dict[str, list[ScoredAnswer]] = {}
    for answer in answers:
        by_model.setdefault(answer.given.model, []).append(answer)
    for model in sorted(by_model):
        own = by_model[model]
        correct = [answer.given.correct for answer in own]
        if len(own) >= MIN_ANSWERS_OF_MODEL and len(set(correct)) == 2:
            yield ModelRow(model, len(own), accuracy(correct), _compute_aurocs(own))


def _compute_aurocs(answers: Sequence[ScoredAnswer]) -> dict[str, float]:
    """Return the AUROC of each score that all of these answers have."""
    names = [name for name in SCORES if len(select_answers(answers, name)) == len(answers)]
    return {name: auroc(*_pair(name, answers)) for name in names}


def format_page(reports: Sequence[Report]) -> Iterator[str]:
    """Yield the lines of all tables in Markdown, the summary first."""
    yield "| file | answers | groups | too long | no context | right | released (right) | ECE |"
    yield "|---|---|---|---|---|---|---|---|"
    for report in reports:
        yield format_summary(report)
    for report in reports:
        yield f"\n## {report.name}\n"
        yield from format_tables(report)


def format_summary(report: Report) -> str:
    """Return the row of a file in the summary, in %."""
    counts = (report.n, report.groups, report.too_long, report.without_context)
    released = f"{100 * report.coverage:.1f}"
    if report.selective_accuracy is not None:
        released += f" ({100 * report.selective_accuracy:.1f})"
    right, error = (f"{100 * share:.1f}" for share in (report.accuracy, report.ece))
    return _join([report.name, *map(str, counts), right, released, error])


def format_tables(report: Report) -> Iterator[str]:
    """Yield the lines of the tables of a file."""
    yield "| score | n | AUROC | AUACC |"
    yield "|---|---|---|---|"
    for row in report.scores:
        yield format_row(row, ".1f")
    yield "\n| difference | n | AUROC | AUACC |"
    yield "|---|---|---|---|"
    for row in report.differences:
        yield format_row(row, "+.1f")
    if report.models:
        yield ""
        yield from format_models(report)


def format_row(row: ScoreRow, form: str) -> str:
    """Return the row of a score, in % with intervals."""
    cells = [row.name, str(row.n)]
    cells += [_format_interval(interval, form) for interval in (row.auroc, row.auacc)]
    return _join(cells)


def _format_interval(interval: Interval | None, form: str) -> str:
    if interval is None:
        return _DASH
    value, low, high = (f"{100 * figure:{form}}" for figure in interval)
    return f"{value} [{low}, {high}]"


def format_models(report: Report) -> Iterator[str]:
    """Yield the lines of the table of models: the AUROC of each score, in %."""
    names = [row.name for row in report.scores]
    yield _join(["AUROC on answers of", "n", "right", *names])
    yield "|---" * (3 + len(names)) + "|"
    for row in report.models:
        cells = [row.model, str(row.n), f"{100 * row.accuracy:.1f}"]
        for name in names:
            cells.append(f"{100 * row.auroc[name]:.1f}" if name in row.auroc else _DASH)
        yield _join(cells)


def _join(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
