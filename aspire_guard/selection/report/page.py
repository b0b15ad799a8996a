"""The report: everything about a set of scored answers on one page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from aspire_guard.errors import InputError
from aspire_guard.selection.arrays import Labels
from aspire_guard.selection.calibration import Calibration, Threshold
from aspire_guard.selection.calibrators import Calibrator, fit_calibrator
from aspire_guard.selection.metrics import Interval, brier, ece, reliability_bins
from aspire_guard.selection.report import figures, tables
from aspire_guard.selection.report.error_examples import (
    Texts,
    describe_examples,
    find_best_rejected,
    find_worst_mistakes,
)
from aspire_guard.selection.report.reliability_data import Confidences, compare_confidences
from aspire_guard.selection.report.weak_sentences import find_sentence_limit
from aspire_guard.selection.risk_control.thresholds import UnmetTarget, choose_bands
from aspire_guard.selection.scored_answers import ScoredAnswers, find_warnings

TARGET_RISKS = (0.3, 0.2, 0.1, 0.05)

ReadTexts = Callable[[list[str]], Mapping[str, Texts]]

# Characters that browsers don't show, or that reverse the text around them. The answers may contain any of them.
_INVISIBLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def write_report(
    answers: ScoredAnswers,
    calibration: Calibration,
    output: str | Path,
    *,
    date: str,
    test: ScoredAnswers | None = None,
    evaluator: Mapping[str, Any] | None = None,
    delta: float = 0.05,
    read_texts: ReadTexts = lambda ids: {},
) -> Path:
    """Write the report on scored answers: one HTML file that needs no network and no script.

    Args:
        answers: the answers that the report's thresholds are chosen on.
        calibration: the calibrator, and the thresholds that the evaluator already has.
        output: the file to write. An existing file is replaced.
        date: the date of the report, ISO 8601.
        test: answers on which nothing was fitted or chosen, to measure the thresholds on.
        evaluator: the settings of the evaluator that scored the answers, as JSON values, with its `provenance`.
        delta: the probability that one of the promises for `TARGET_RISKS` fails, in (0, 1).
        read_texts: gives the questions and answers with these ids, to show as examples. They are ids of the test
            answers if there are test answers, otherwise of `answers`.

    Raises:
        InputError: the test answers are among the others, δ is outside (0, 1), or the file can't be written.
    """
    output = Path(output)
    if test is not None:
        _check_disjoint(answers, test)
    thresholds = _choose_target_thresholds(answers, calibration, date, delta)
    promised = [item for item in thresholds.values() if isinstance(item, Threshold)]
    confidences = compare_confidences(answers, calibration, test)
    page = _load_template().render(
        answers=answers,
        test=test,
        calibration=calibration,
        date=date,
        confidence_level=f"{100 * (1 - delta):.4g}\u00a0%",
        warnings=find_warnings(answers, evaluator["provenance"] if evaluator else None),
        target_rows=tables.make_target_rows(thresholds, calibration, test),
        evaluator_rows=tables.make_evaluator_rows(calibration, test),
        score_rows=tables.make_score_rows(figures.collect_scores(answers), answers.correct),
        reliability=[_summarise_reliability(each) for each in confidences],
        charts=_draw_charts(answers, promised, test, confidences),
        cost_ratios=figures.COST_RATIOS,
        max_resampled=tables.MAX_RESAMPLED,
        provenance=dict(_flatten(evaluator or {})),
        out_of_domain=_count_out_of_domain(answers, test),
        examples=_find_examples(test or answers, calibration, promised, read_texts),
    )
    try:
        output.write_text(page, encoding="utf-8", errors="replace")
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"{output}: expected a file to write, found: {reason}; check the path"
        ) from error
    return output


def _check_disjoint(answers: ScoredAnswers, test: ScoredAnswers) -> None:
    shared = set(answers.ids) & set(test.ids)
    if shared:
        raise InputError(
            f"{test.source}: expected test answers that are not in {answers.source}, found {len(shared):,} ids of it; "
            "take other answers, or give them other ids"
        )


def _choose_target_thresholds(
    answers: ScoredAnswers, calibration: Calibration, date: str, delta: float
) -> dict[str, Threshold | UnmetTarget]:
    """Choose a threshold for each target risk. All promises hold together."""
    chosen = _choose_thresholds(answers, calibration.calibrator, date, delta)
    if all(isinstance(threshold, Threshold) for threshold in chosen.values()):
        return chosen
    # If no threshold is found, the advice on how many more answers are needed is computed from the confidences.
    # The evaluator's own confidences may be off on these answers, so the advice comes from fitted confidences.
    fitted = fit_calibrator(answers.selection_score, answers.correct).calibrator
    for name, advice in _choose_thresholds(answers, fitted, date, delta).items():
        if isinstance(chosen[name], UnmetTarget) and isinstance(advice, UnmetTarget):
            chosen[name] = advice
    return chosen


def _choose_thresholds(
    answers: ScoredAnswers, calibrator: Calibrator, date: str, delta: float
) -> dict[str, Threshold | UnmetTarget]:
    targets = {f"risk\u00a0≤\u00a0{100 * risk:g}\u00a0%": risk for risk in TARGET_RISKS}
    return choose_bands(
        answers.selection_score,
        answers.correct,
        targets,
        calibrator=calibrator,
        date=date,
        delta=delta,
    )


def _draw_charts(
    answers: ScoredAnswers,
    promised: Sequence[Threshold],
    test: ScoredAnswers | None,
    confidences: Sequence[Confidences],
) -> dict[str, Markup]:
    """Return the SVG element of each chart, which the template must not escape."""
    charts = {
        "risk": figures.make_risk_chart(answers, promised, test),
        "accuracy": figures.make_accuracy_chart(answers),
        "reliability": figures.make_reliability_chart(confidences),
        "scores": figures.make_score_chart(answers, promised),
        "cost": figures.make_cost_chart(answers),
    }
    return {name: Markup(svg) for name, svg in charts.items()}


def _summarise_reliability(confidences: Confidences) -> dict[str, Any]:
    values, correct = confidences.values, confidences.correct
    return {
        "name": confidences.name,
        "origin": confidences.origin,
        "ece": ece(values, correct),
        "brier": brier(values, correct),
        "bins": reliability_bins(values, correct),
    }


def _find_examples(
    answers: ScoredAnswers,
    calibration: Calibration,
    promised: Sequence[Threshold],
    read_texts: ReadTexts,
) -> dict[str, Any]:
    """Choose the single answers to show, and say which threshold rejects the rejected ones."""
    released, rejected_by = _find_released(answers, calibration, promised)
    mistakes = find_worst_mistakes(answers)
    rejected = find_best_rejected(answers, released)
    texts = read_texts([answers.ids[index] for index in mistakes + rejected])

    @cache
    def find_limit(group: str | None) -> float:
        return find_sentence_limit(_choose_threshold(calibration, promised, group), answers)

    describe = partial(
        describe_examples,
        answers=answers,
        calibration=calibration,
        texts=texts,
        find_limit=find_limit,
    )
    return {
        "source": answers.source,
        "mistakes": describe(mistakes),
        "rejected": describe(rejected),
        "rejected_by": rejected_by,
        "have_texts": any(each[:2] != (None, None) for each in texts.values()),
        "have_sentences": any(each.answer and each.sentences for each in texts.values()),
    }


def _find_released(
    answers: ScoredAnswers, calibration: Calibration, promised: Sequence[Threshold]
) -> tuple[Labels, str]:
    """Mark the released answers, `(n,)`, and name the threshold that decides."""
    if _has_own_threshold(calibration):
        released = calibration.released(answers.selection_score, answers.group)
        return released, "the evaluator's threshold"
    strictest = _choose_threshold(calibration, promised)
    if strictest is not None:
        confidences = calibration.calibrator.confidences(answers.selection_score)
        return confidences >= strictest.confidence, f"the threshold for {strictest.name}"
    nothing = np.zeros(len(answers), dtype=np.bool_)
    return nothing, "default, as no threshold has a guarantee"


def _choose_threshold(
    calibration: Calibration, promised: Sequence[Threshold], group: str | None = None
) -> Threshold | None:
    """Return the threshold that decides on a group: the evaluator's, or else the strictest promised one, or None."""
    if _has_own_threshold(calibration):
        return calibration.threshold_for(group)
    return min(promised, key=lambda threshold: threshold.target, default=None)


def _has_own_threshold(calibration: Calibration) -> bool:
    return any(threshold.name == "accept" for threshold in calibration.thresholds)


def _count_out_of_domain(answers: ScoredAnswers, test: ScoredAnswers | None) -> dict[str, str]:
    """Say how many answers of each file are out of domain. Files without any are left out."""
    counts = {}
    for name, each in {"out of domain": answers, "out of domain, test": test}.items():
        if each is not None and each.out_of_domain is not None and each.out_of_domain.any():
            count = int(each.out_of_domain.sum())
            counts[name] = f"{_format_percent(count / len(each))} ({count:,})"
    return counts


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested settings as pairs of a path and a text."""
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{name} › ")
        elif isinstance(value, list):
            yield name, ", ".join(map(str, value))
        else:
            yield name, str(value)


def _load_template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = _format_percent
    environment.filters["visible"] = _mark_invisible
    environment.filters["interval"] = _format_interval
    environment.filters["value"] = _format_value
    source = files(__package__).joinpath("template.html").read_text(encoding="utf-8")
    return environment.from_string(source)


def _format_percent(share: float | None, digits: int = 1) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f}\u00a0%"


def _mark_invisible(text: str) -> str:
    """Replace each character that readers could not see by a visible mark."""
    return _INVISIBLE.sub("\ufffd", text)


def _format_interval(metric: Interval | float | None) -> str:
    value = _format_value(metric)
    if isinstance(metric, Interval):
        return f"{value} [{100 * metric.low:.1f}, {100 * metric.high:.1f}]"
    return value


def _format_value(metric: Interval | float | None) -> str:
    value = metric.value if isinstance(metric, Interval) else metric
    return "–" if value is None else f"{100 * value:.1f}"
