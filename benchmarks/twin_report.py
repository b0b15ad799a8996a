"""The figures of `twins.py`, from scored twins and padded answers to tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median

from answer_report import ASPIRE, OVERLAP, SCORES, Report, format_page, make_report, select_answers
from given_answers import ScoredAnswer
from twin_answers import HELD_OUT, KINDS, STYLES, TwinQuestion

from aspire_guard.selection.metrics import auroc, coverage_and_accuracy

RANKED = (ASPIRE, "log-likelihood", OVERLAP)
_DASH = "–"


@dataclass(frozen=True)
class ScoredTwins:
    """The right and the wrong answer to a question in one style, with their scores."""

    question: TwinQuestion
    style: str
    right: ScoredAnswer
    wrong: ScoredAnswer

    @property
    def fits(self) -> bool:
        """True if the evaluator could score both."""
        return self.right.fits and self.wrong.fits


@dataclass(frozen=True)
class ScoredPadded:
    """A wrong answer without and with padding, with the scores of both."""

    form: str
    plain: ScoredAnswer
    padded: ScoredAnswer


@dataclass(frozen=True)
class PairRow:
    """The figures of some of the twins.

    Attributes:
        name: what the twins have in common.
        pairs: the number of twins.
        above: by the score's name, the share of twins in which the right one scores above the wrong one. A tie counts
            as not above.
        auroc: by the score's name, the AUROC over all answers of these twins together.
        coverage: the share of the answers that the threshold releases.
        selective_accuracy: the share of right answers among the released, or None if no answer is released.
    """

    name: str
    pairs: int
    above: dict[str, float]
    auroc: dict[str, float]
    coverage: float
    selective_accuracy: float | None


@dataclass(frozen=True)
class Spread:
    """The dependence of the confidence in the same fact on the style: the medians over the questions' right answers.

    Attributes:
        questions: the number of questions.
        range: the highest confidence minus the lowest.
        deviation: the median distance from the fact's median confidence.
    """

    questions: int
    range: float
    deviation: float


@dataclass(frozen=True)
class PaddingRow:
    """The figures of wrong answers in a form of padding.

    Attributes:
        form: the name of the form.
        n: the number of answers.
        too_long: the number of answers that don't fit the window with their padding. None of them is released.
        released_before: the number of answers that the threshold releases without padding.
        newly_released: the number of answers that it releases with padding only.
        raised: the share of the fitting answers whose confidence is higher with padding.
        confidence: the mean confidence of the fitting answers with padding, or None if none fits.
    """

    form: str
    n: int
    too_long: int
    released_before: int
    newly_released: int
    raised: float
    confidence: float | None


@dataclass(frozen=True)
class TwinReport:
    """The figures of all twins and of the padded answers.

    Attributes:
        threshold: the threshold of the evaluator.
        too_long: the number of twins of which one doesn't fit the window. They are in no other figure.
        rows: all twins, those of the held-out styles and of the others, each style, each kind of error.
        spread: how much the confidence depends on the style.
        padding: a row for each form, and one for all.
        reports: the tables of `real_answers.py`, over all styles and over those held out.
    """

    threshold: float
    too_long: int
    rows: list[PairRow]
    spread: Spread
    padding: list[PaddingRow]
    reports: list[Report]


def make_twin_report(
    twins: Sequence[ScoredTwins], padded: Sequence[ScoredPadded], threshold: float
) -> TwinReport:
    """Compute all figures.

    Raises:
        InputError: no twins of a table fit the window.
    """
    fitting = [each for each in twins if each.fits]
    held_out = [each for each in fitting if each.style in HELD_OUT]
    reports = [
        make_report(name, list(list_scored(chosen)), threshold)
        for name, chosen in (("All styles", fitting), ("Held-out styles", held_out))
    ]
    return TwinReport(
        threshold=threshold,
        too_long=len(twins) - len(fitting),
        rows=list(make_rows(fitting, threshold)),
        spread=measure_spread(fitting),
        padding=make_padding_rows(padded, threshold),
        # A style is a row of our own.
        reports=[replace(report, models=[]) for report in reports],
    )


def list_scored(twins: Iterable[ScoredTwins]) -> Iterator[ScoredAnswer]:
    """Yield the right and the wrong answer of each."""
    for pair in twins:
        yield pair.right
        yield pair.wrong


def make_rows(twins: Sequence[ScoredTwins], threshold: float) -> Iterator[PairRow]:
    """Yield the row of all twins, of the held-out styles and the others, of each style, and of each kind of error."""
    parts = {
        "all": list(twins),
        "held-out styles": [pair for pair in twins if pair.style in HELD_OUT],
        "other styles": [pair for pair in twins if pair.style not in HELD_OUT],
    }
    for style in STYLES:
        parts[f"style: {style}"] = [pair for pair in twins if pair.style == style]
    for kind in KINDS:
        parts[f"error: {kind}"] = [pair for pair in twins if pair.question.kind == kind]
    for name, part in parts.items():
        if part:
            yield make_row(name, part, threshold)


def make_row(name: str, twins: Sequence[ScoredTwins], threshold: float) -> PairRow:
    """Return the figures of these twins, by each score that all of them have."""
    answers = list(list_scored(twins))
    correct = [answer.given.correct for answer in answers]
    confidence = [answer.scores["confidence"] for answer in answers]
    released = coverage_and_accuracy(confidence, correct, threshold)
    ranked = [score for score in RANKED if len(select_answers(answers, score)) == len(answers)]
    areas = {}
    for score in ranked:
        areas[score] = auroc([answer.scores[SCORES[score]] for answer in answers], correct)
    return PairRow(
        name=name,
        pairs=len(twins),
        above={score: measure_share_above(twins, SCORES[score]) for score in ranked},
        auroc=areas,
        coverage=released.coverage,
        selective_accuracy=released.accuracy,
    )


def measure_share_above(twins: Sequence[ScoredTwins], key: str) -> float:
    """Return the share of twins in which the right answer scores above the wrong one."""
    return fmean(pair.right.scores[key] > pair.wrong.scores[key] for pair in twins)


def measure_spread(twins: Iterable[ScoredTwins]) -> Spread:
    """Return how much the confidence in the right answers depends on the style."""
    by_question: dict[str, list[float]] = {}
    for pair in twins:
        confidence = pair.right.scores["confidence"]
        by_question.setdefault(pair.question.id, []).append(confidence)
    ranges, deviations = [], []
    for values in by_question.values():
        center = median(values)
        ranges.append(max(values) - min(values))
        deviations.append(median(abs(value - center) for value in values))
    return Spread(len(by_question), median(ranges), median(deviations))


def make_padding_rows(padded: Sequence[ScoredPadded], threshold: float) -> list[PaddingRow]:
    """Return a row for all padded answers, and one for each form."""
    by_form: dict[str, list[ScoredPadded]] = {}
    for each in padded:
        by_form.setdefault(each.form, []).append(each)
    rows = [make_padding_row(form, own, threshold) for form, own in by_form.items()]
    return [make_padding_row("all", padded, threshold), *rows]


def make_padding_row(form: str, answers: Sequence[ScoredPadded], threshold: float) -> PaddingRow:
    """Return the figures of these answers."""
    before = [is_released(each.plain, threshold) for each in answers]
    after = [is_released(each.padded, threshold) for each in answers]
    fitting = [each for each in answers if each.plain.fits and each.padded.fits]
    confidences = [each.padded.scores["confidence"] for each in fitting]
    rises = [each.padded.scores["confidence"] > each.plain.scores["confidence"] for each in fitting]
    return PaddingRow(
        form=form,
        n=len(answers),
        too_long=len(answers) - len(fitting),
        released_before=sum(before),
        newly_released=sum(now and not earlier for earlier, now in zip(before, after, strict=True)),
        raised=fmean(rises) if rises else 0.0,
        confidence=fmean(confidences) if confidences else None,
    )


def is_released(answer: ScoredAnswer, threshold: float) -> bool:
    """Return True if the answer could be scored, and its confidence reaches the threshold."""
    return answer.fits and answer.scores["confidence"] >= threshold


def format_twin_page(report: TwinReport) -> Iterator[str]:
    """Yield the lines of all tables in Markdown."""
    yield "| twins | pairs | right above wrong | AUROC | … likelihood | … word overlap | released (right) |"
    yield "|---|---|---|---|---|---|---|"
    for row in report.rows:
        yield format_pair_row(row)
    yield ""
    yield from format_spread(report)
    yield "\n| padding | answers | too long | released before | newly released | raised | mean confidence |"
    yield "|---|---|---|---|---|---|---|"
    for form in report.padding:
        yield format_padding_row(form)
    yield ""
    yield from format_page(report.reports)


def format_pair_row(row: PairRow) -> str:
    """Return the row of some twins, in %."""
    cells = [row.name, str(row.pairs), _format_share(row.above.get(ASPIRE))]
    cells += [_format_share(row.auroc.get(score)) for score in RANKED]
    released = _format_share(row.coverage)
    if row.selective_accuracy is not None:
        released += f" ({_format_share(row.selective_accuracy)})"
    return _join([*cells, released])


def format_spread(report: TwinReport) -> Iterator[str]:
    """Yield the lines on the spread of the confidence, and on the twins that could not be scored."""
    spread = report.spread
    yield (
        f"The confidence in a right answer differs by {spread.range:.3f} between the styles, and lies "
        f"{spread.deviation:.3f} off the fact's median (medians over {spread.questions} questions)."
    )
    if report.too_long:
        yield f"Twins that don't fit the window of the evaluator's model: {report.too_long}."


def format_padding_row(row: PaddingRow) -> str:
    """Return the row of a form of padding, with the share in %."""
    counts = (row.n, row.too_long, row.released_before, row.newly_released)
    confidence = _DASH if row.confidence is None else f"{row.confidence:.3f}"
    return _join([row.form, *map(str, counts), _format_share(row.raised), confidence])


def _format_share(share: float | None) -> str:
    return _DASH if share is None else f"{100 * share:.1f}"


def _join(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
