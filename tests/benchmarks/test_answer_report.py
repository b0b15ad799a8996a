"""The figures and tables of answers of language models."""

from __future__ import annotations

import pytest
from answer_report import (
    SCORES,
    ModelRow,
    ScoreRow,
    format_page,
    make_report,
    make_reports,
    rank_answers,
)
from given_answers import ScoredAnswer, Scores

from aspire_guard.errors import InputError
from aspire_guard.exchange import Exchange
from aspire_guard.selection.metrics import Interval, auroc, bootstrap_interval
from aspire_trainers.data.rated_answers import RatedAnswer

# The confidence, the word overlap, and the label of each answer.
FOUR = [(0.9, 0.2, True), (0.8, 0.9, False), (0.6, 0.8, True), (0.1, 0.1, False)]


def make_answer(
    number: int, correct: bool, scores: Scores, *, file: str = "some", model: str = "a-model"
) -> ScoredAnswer:
    context = "A passage." if "word_overlap" in scores else None
    exchange = Exchange(question="Which?", context=context, answer="This.")
    given = RatedAnswer(file, str(number), exchange, correct, model, f"g{number // 2}")
    return ScoredAnswer(given, scores)


def make_answers(
    copies: int = 1, *, file: str = "some", model: str = "a-model"
) -> list[ScoredAnswer]:
    answers = []
    for number, (confidence, overlap, correct) in enumerate(FOUR * copies):
        scores = {
            "selection_score": confidence - 1,
            "confidence": confidence,
            "word_overlap": overlap,
            "negative_length": -1.0,
        }
        answers.append(make_answer(number, correct, scores, file=file, model=model))
    return answers


def find_row(rows: list[ScoreRow], name: str) -> ScoreRow:
    (row,) = [row for row in rows if row.name == name]
    return row


def test_the_figures_of_a_file() -> None:
    """Of four answers and one that is too long, the threshold releases two, of which one is right."""
    too_long = make_answer(4, True, {"negative_length": -900.0})
    report = make_report("some", [*make_answers(), too_long], threshold=0.7)
    assert (report.n, report.too_long, report.groups, report.without_context) == (4, 1, 2, 0)
    assert (report.accuracy, report.coverage, report.selective_accuracy) == (0.5, 0.5, 0.5)
    # Every answer has a bin of its own.
    assert report.ece == pytest.approx((0.1 + 0.8 + 0.4 + 0.1) / 4)
    assert report.models == []


def test_every_score_has_the_metrics_of_its_own_ranking() -> None:
    """Three of four pairs are in order by "aspire", two by word overlap; equal lengths rank nothing."""
    report = make_report("some", make_answers(), threshold=0.7)
    optional = ("P(True)", "g, one alpha")
    assert [row.name for row in report.scores] == [name for name in SCORES if name not in optional]
    areas = []
    for name in ("aspire", "word overlap", "length"):
        row = find_row(report.scores, name)
        assert row.auroc is not None
        assert row.auacc is not None
        areas.append((row.n, row.auroc.value, row.auacc.value))
    assert areas == [
        (4, 0.75, pytest.approx((1 + 1 / 2 + 2 / 3 + 2 / 4) / 4)),
        (4, 0.5, pytest.approx((0 + 1 / 2 + 2 / 3 + 2 / 4) / 4)),
        (4, 0.5, 0.5),
    ]
    assert find_row(report.scores, "log-likelihood") == ScoreRow("log-likelihood", 0, None, None)


def test_the_difference_is_that_of_the_answers_with_both_scores() -> None:
    """An answer without a context counts for "aspire" alone, and not for its difference from word overlap."""
    without_context = make_answer(4, False, {"selection_score": 0.5, "confidence": 0.95})
    report = make_report("some", [*make_answers(), without_context], threshold=0.7)
    assert report.without_context == 1
    aspire = find_row(report.scores, "aspire")
    assert aspire.n == 5
    assert aspire.auroc is not None
    assert aspire.auroc.value == 0.5
    difference = find_row(report.differences, "aspire − word overlap")
    assert difference.n == 4
    assert difference.auroc is not None
    assert difference.auroc.value == 0.25
    rival = find_row(report.differences, "aspire − log-likelihood")
    assert rival == ScoreRow("aspire − log-likelihood", 0, None, None)


def test_the_bootstrap_draws_whole_groups(resamples: int) -> None:
    """The interval of a score is that of `bootstrap_interval` with the groups as questions."""
    answers = make_answers(copies=5)
    scores = [answer.scores["word_overlap"] for answer in answers]
    correct = [answer.given.correct for answer in answers]
    groups = [answer.group for answer in answers]
    expected = bootstrap_interval(auroc, scores, correct, questions=groups, resamples=resamples)
    assert rank_answers("word overlap", answers).auroc == expected
    assert expected != bootstrap_interval(auroc, scores, correct, resamples=resamples)


def test_models_with_enough_answers_of_both_kinds_have_a_row() -> None:
    """Twenty answers, right and wrong, are enough; a score that is not there for all of them is left out."""
    many = make_answers(copies=5, model="many")
    few = make_answers(model="few")
    always_right = [
        make_answer(number, True, answer.scores, model="right")
        for number, answer in enumerate(many)
    ]
    report = make_report("some", [*few, *always_right, *many], threshold=0.7)
    areas = {"aspire": 0.75, "word overlap": 0.5, "length": 0.5}
    assert report.models == [ModelRow("many", 20, 0.5, areas)]


def test_groups_of_different_files_are_different() -> None:
    """Two files have a report each and one together, and groups of equal names stay apart."""
    reports = make_reports([*make_answers(file="a"), *make_answers(file="b")], threshold=0.7)
    assert [(report.name, report.n, report.groups) for report in reports] == [
        ("a", 4, 2),
        ("b", 4, 2),
        ("All files", 8, 4),
    ]
    assert [report.name for report in make_reports(make_answers(), threshold=0.7)] == ["some"]


def test_a_file_of_which_nothing_fits_is_an_error() -> None:
    """There is nothing to report."""
    with pytest.raises(InputError, match="expected a list of at least one boolean"):
        make_report("some", [make_answer(0, True, {})], threshold=0.7)


def test_the_page_has_all_tables() -> None:
    """Figures are in %, with their intervals, and an undefined figure is a dash."""
    report = make_report("some", make_answers(copies=5), threshold=0.95)
    aspire = find_row(report.scores, "aspire")
    assert aspire.auroc is not None
    assert aspire.auacc is not None
    lines = list(format_page([report]))
    assert lines[:4] == [
        "| file | answers | groups | too long | no context | right | released (right) | ECE |",
        "|---|---|---|---|---|---|---|---|",
        "| some | 20 | 10 | 0 | 0 | 50.0 | 0.0 | 35.0 |",
        "\n## some\n",
    ]
    cells = [_format(aspire.auroc), _format(aspire.auacc)]
    assert f"| aspire | 20 | {cells[0]} | {cells[1]} |" in lines
    assert "| log-likelihood | 0 | – | – |" in lines
    assert "| aspire − log-likelihood | 0 | – | – |" in lines
    assert lines[-3:] == [
        "| AUROC on answers of | n | right | aspire | log-likelihood | P(z_c) | word overlap | length |",
        "|---|---|---|---|---|---|---|---|",
        "| a-model | 20 | 50.0 | 75.0 | – | – | 50.0 | 50.0 |",
    ]


def _format(interval: Interval) -> str:
    value, low, high = (100 * figure for figure in interval)
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"
