"""The report: everything about a set of scored answers on one page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from aspire_guard.errors import InputError
from aspire_guard.selection.calibration import Calibration, Threshold
from aspire_guard.selection.calibrators import fit_calibrator
from aspire_guard.selection.metrics import Interval, brier, ece, reliability_bins
from aspire_guard.selection.report import figures, tables
from aspire_guard.selection.report.error_examples import (
    Texts,
    find_best_rejected,
    find_examples,
    find_worst_mistakes,
)
from aspire_guard.selection.report.reliability_data import before_and_after
from aspire_guard.selection.risk_control.candidate_thresholds import Calibrator
from aspire_guard.selection.risk_control.thresholds import NoThreshold, choose_bands
from aspire_guard.selection.scored_answers import ScoredAnswers, warnings

if TYPE_CHECKING:
    from aspire_guard.evaluators.evaluator_folder import Manifest

TARGET_RISKS = (0.3, 0.2, 0.1, 0.05)

ReadTexts = Callable[[ScoredAnswers, list[str]], Mapping[str, Texts]]

# Characters that no browser shows, or that turn the line around them; the answers may hold any.
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def write_report(
    answers: ScoredAnswers,
    calibration: Calibration,
    output: Path,
    *,
    date: str,
    test: ScoredAnswers | None = None,
    evaluator: Manifest | None = None,
    delta: float = 0.05,
    texts: ReadTexts = lambda _answers, _ids: {},
) -> Path:
    """Write the report on scored answers: one HTML file that needs no network and no script.

    Args:
        answers: what the thresholds of the report are found on.
        calibration: the calibrator, and thresholds that stand already.
        output: the file to write; an existing one is replaced.
        date: of the report, ISO 8601.
        test: answers of which nothing was fitted or chosen, to see what the thresholds come to.
        evaluator: what scored the answers, for its provenance.
        delta: the probability that one of the promises for `TARGET_RISKS` fails, in (0, 1).
        texts: gives questions and answers of these answers' ids, to be shown as examples.

    Raises:
        InputError: the test answers are among the others, δ is no share, or the file can't be written.
    """
    if test is not None:
        _check_apart(answers, test)
    page = _template().render(_context(answers, calibration, date, test, evaluator, delta, texts))
    try:
        output.write_text(page, encoding="utf-8", errors="replace")
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"{output}: expected a file to write, found: {reason}; check the path"
        ) from error
    return output


def _context(
    answers: ScoredAnswers,
    calibration: Calibration,
    date: str,
    test: ScoredAnswers | None,
    evaluator: Manifest | None,
    delta: float,
    texts: ReadTexts,
) -> dict[str, Any]:
    found = _found(answers, calibration, date, delta)
    promised = [item for item in found.values() if isinstance(item, Threshold)]
    judged = before_and_after(answers, calibration, test)
    return {
        "answers": answers,
        "test": test,
        "calibration": calibration,
        "date": date,
        "confidence_level": f"{100 * (1 - delta):.4g}\u00a0%",
        "notes": warnings(answers, evaluator.provenance if evaluator else None),
        "asked": tables.asked_rows(found, calibration, test),
        "own": tables.own_rows(calibration, test),
        "scores": tables.score_rows(figures.all_scores(answers), answers.correct),
        "judged": [
            {
                "name": each.short,
                "origin": each.origin,
                "ece": ece(each.values, each.correct),
                "brier": brier(each.values, each.correct),
                "bins": reliability_bins(each.values, each.correct),
            }
            for each in judged
        ],
        "charts": {
            "risk": Markup(figures.risk_chart(answers, promised, test)),
            "accuracy": Markup(figures.accuracy_chart(answers)),
            "reliability": Markup(figures.reliability_chart(judged)),
            "scores": Markup(figures.score_chart(answers, promised)),
            "cost": Markup(figures.cost_chart(answers)),
        },
        "ratios": figures.COST_RATIOS,
        "most_resampled": tables.MOST_RESAMPLED,
        "provenance": dict(_flat(evaluator.model_dump(mode="json", exclude={"files", "metrics"})))
        if evaluator
        else {},
        **_examples(test or answers, calibration, promised, texts),
    }


def _found(
    answers: ScoredAnswers, calibration: Calibration, date: str, delta: float
) -> dict[str, Threshold | NoThreshold]:
    """The thresholds for all target risks, promised together."""
    found = _bands(answers, calibration.calibrator, date, delta)
    if all(isinstance(item, Threshold) for item in found.values()):
        return found
    # How many more answers would do is read off the confidences, and an evaluator's own may be off on these answers.
    fitted = _bands(
        answers, fit_calibrator(answers.selection_score, answers.correct).calibrator, date, delta
    )
    return {
        name: advice
        if isinstance(item, NoThreshold) and isinstance(advice := fitted[name], NoThreshold)
        else item
        for name, item in found.items()
    }


def _bands(
    answers: ScoredAnswers, calibrator: Calibrator, date: str, delta: float
) -> dict[str, Threshold | NoThreshold]:
    return choose_bands(
        answers.selection_score,
        answers.correct,
        {f"risk\u00a0≤\u00a0{100 * risk:g}\u00a0%": risk for risk in TARGET_RISKS},
        calibrator=calibrator,
        date=date,
        delta=delta,
    )


def _examples(
    answers: ScoredAnswers, calibration: Calibration, promised: list[Threshold], texts: ReadTexts
) -> dict[str, Any]:
    """Single answers, and in words which threshold rejects."""
    if any(cut.name == "accept" for cut in calibration.thresholds):
        released, by = (
            calibration.released(answers.selection_score, answers.group),
            "the evaluator's threshold",
        )
    elif promised:
        strictest = min(promised, key=lambda cut: cut.target)
        released = (
            calibration.calibrator.confidences(answers.selection_score) >= strictest.confidence
        )
        by = f"the threshold for {strictest.name}"
    else:
        released, by = (
            np.zeros(len(answers), dtype=np.bool_),
            "every threshold, as there is none to promise",
        )
    mistakes, rejected = find_worst_mistakes(answers), find_best_rejected(answers, released)
    known = texts(answers, [answers.ids[place] for place in mistakes + rejected])
    return {
        "example_source": answers.source,
        "mistakes": find_examples(mistakes, answers, calibration, known),
        "rejected": find_examples(rejected, answers, calibration, known),
        "rejected_by": by,
        "have_texts": any(text is not None for each in known.values() for text in each),
    }


def _check_apart(answers: ScoredAnswers, test: ScoredAnswers) -> None:
    shared = set(answers.ids) & set(test.ids)
    if shared:
        raise InputError(
            f"{test.source}: expected test answers that are not in {answers.source}, found {len(shared):,} ids of it; "
            "take other answers, or name them apart"
        )


def _flat(value: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings, one line each."""
    for key, item in value.items():
        name = f"{above}{key}"
        if isinstance(item, Mapping) and item:
            yield from _flat(item, f"{name} › ")
        else:
            yield name, ", ".join(map(str, item)) if isinstance(item, list) else str(item)


def _template() -> Any:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": _percent,
        "seen": _seen,
        "interval": _interval,
        "value": _value,
    }
    return environment.from_string(
        files(__package__).joinpath("template.html").read_text(encoding="utf-8")
    )


def _percent(share: float | None, digits: int = 1) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f}\u00a0%"


def _seen(text: str) -> str:
    """The text with a mark in place of each character that could not be seen."""
    return _UNSEEN.sub("\ufffd", text)


def _interval(metric: Interval | float | None) -> str:
    if metric is None:
        return "–"
    if isinstance(metric, Interval):
        return f"{_value(metric)} [{100 * metric.low:.1f}, {100 * metric.high:.1f}]"
    return _value(metric)


def _value(metric: Interval | float | None) -> str:
    value = metric.value if isinstance(metric, Interval) else metric
    return "–" if value is None else f"{100 * value:.1f}"
