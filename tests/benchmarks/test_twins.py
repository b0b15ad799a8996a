"""The figures and tables of the twins and of padded answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import twins
from answer_report import ASPIRE, OVERLAP
from given_answers import ScoredAnswer, Scores
from padding import FORMS, make_padded
from real_answers import ScoreFile
from twin_answers import HELD_OUT, KINDS, STYLES, TwinQuestion, make_twins, read_questions
from twin_report import (
    PaddingRow,
    PairRow,
    ScoredPadded,
    ScoredTwins,
    Spread,
    format_twin_page,
    make_padding_rows,
    make_rows,
    make_twin_report,
    measure_spread,
)
from twins import main, score_twins

from aspire_guard.testing import tiny_evaluator
from aspire_trainers.data.rated_answers import RatedAnswer, read_rated_answers

THRESHOLD = 0.5


@pytest.fixture(scope="module")
def questions() -> list[TwinQuestion]:
    return read_questions()[:2]


def find_row(rows: list[PairRow], name: str) -> PairRow:
    (row,) = [row for row in rows if row.name == name]
    return row


def make_scored(
    questions: list[TwinQuestion], confidences: dict[str, tuple[float, float]]
) -> list[ScoredTwins]:
    """Return the twins of these styles, with the confidences of the right and of the wrong answer."""
    scored = []
    for pair in make_twins(questions):
        if pair.style in confidences:
            answers = []
            for given, value in zip((pair.right, pair.wrong), confidences[pair.style], strict=True):
                scores = {"selection_score": value - 1, "confidence": value, "word_overlap": 0.5}
                answers.append(ScoredAnswer(given, scores))
            scored.append(ScoredTwins(pair.question, pair.style, *answers))
    return scored


def test_twins_are_counted_by_style_and_by_kind_of_error(questions: list[TwinQuestion]) -> None:
    """A right answer can rank above its own wrong twin, and below the wrong ones of another style."""
    pairs = make_scored(
        questions, {"bare": (0.9, 0.6), "sentence": (0.55, 0.3), "table": (0.2, 0.2)}
    )
    rows = list(make_rows(pairs, THRESHOLD))
    assert [row.name for row in rows] == [
        "all",
        "held-out styles",
        "other styles",
        "style: bare",
        "style: sentence",
        "style: table",
        "error: number",
        "error: relation",
    ]
    everything, table = find_row(rows, "all"), find_row(rows, "style: table")
    assert everything.pairs == 6
    assert everything.above == {ASPIRE: pytest.approx(2 / 3), OVERLAP: 0.0}
    # Of nine pairs of right and wrong, 0.9 wins three, 0.55 wins two, and 0.2 ties with one.
    assert everything.auroc == {ASPIRE: pytest.approx(5.5 / 9), OVERLAP: 0.5}
    assert everything.coverage == 0.5
    assert everything.selective_accuracy == pytest.approx(2 / 3)
    assert (table.above[ASPIRE], table.auroc[ASPIRE]) == (0.0, 0.5)
    assert (table.coverage, table.selective_accuracy) == (0.0, None)
    assert find_row(rows, "other styles").auroc[ASPIRE] == 0.75
    assert find_row(rows, "error: number").pairs == 3


def test_the_spread_is_that_of_the_right_answers(questions: list[TwinQuestion]) -> None:
    """Of 7/8, 4/8, 3/8 and 1/8 the range is 6/8, and the distances from 3.5/8 have a median of 1.5/8."""
    values = {
        "bare": (0.875, 0.0),
        "sentence": (0.5, 1.0),
        "table": (0.375, 0.0),
        "closing": (0.125, 1.0),
    }
    spread = measure_spread(make_scored(questions, values))
    assert spread == Spread(questions=2, range=0.75, deviation=0.1875)


def test_padding_counts_what_is_released_by_it_alone(questions: list[TwinQuestion]) -> None:
    """An answer that is too long for the window with its padding is never released."""
    padded = []
    values = {
        "answer 3 times": (0.4, 0.5),
        "passage behind": (0.7, 1.0),
        "a word 600 times": (0.4, None),
    }
    for each in make_padded(questions):
        if each.form in values:
            before, after = values[each.form]
            longer = {} if after is None else {"confidence": after}
            plain = ScoredAnswer(each.plain, {"confidence": before})
            padded.append(ScoredPadded(each.form, plain, ScoredAnswer(each.padded, longer)))
    assert make_padding_rows(padded, THRESHOLD) == [
        PaddingRow("all", 3, 1, 1, 1, 1.0, 0.75),
        PaddingRow("passage behind", 1, 0, 1, 0, 1.0, 1.0),
        PaddingRow("answer 3 times", 1, 0, 0, 1, 1.0, 0.5),
        PaddingRow("a word 600 times", 1, 1, 0, 0, 0.0, None),
    ]


def test_twins_that_do_not_fit_are_left_out(questions: list[TwinQuestion]) -> None:
    """They are counted, and the page says so."""
    pairs = make_scored(questions, dict.fromkeys(STYLES, (0.9, 0.1)))
    too_long = ScoredTwins(
        questions[0], "bare", pairs[0].right, ScoredAnswer(pairs[0].wrong.given, {})
    )
    padded = [
        ScoredPadded(each.form, pairs[0].wrong, pairs[0].wrong) for each in make_padded(questions)
    ]
    report = make_twin_report([*pairs, too_long], padded, THRESHOLD)
    assert report.too_long == 1
    assert report.rows[0].pairs == len(pairs) == 20
    assert [part.n for part in report.reports] == [40, 2 * 2 * len(HELD_OUT)]
    page = "\n".join(format_twin_page(report))
    assert "| all | 20 | 100.0 | 100.0 | – | 50.0 | 50.0 (100.0) |" in page
    assert "Twins that don't fit the window of the evaluator's model: 1." in page
    assert "differs by 0.000 between the styles" in page


def test_scores_come_back_to_their_twins(questions: list[TwinQuestion], tmp_path: Path) -> None:
    """Answers over one passage are scored in one go, and padded answers are told apart from their plain ones."""
    batches = []

    def score(answers: Sequence[RatedAnswer]) -> list[Scores]:
        batches.append(len(answers))
        return [{"confidence": len(answer.exchange.answer) / 10_000} for answer in answers]

    scored, padded = score_twins(
        make_twins(questions), make_padded(questions), score, ScoreFile(tmp_path / "s.jsonl", "one")
    )
    assert batches == [40, len(FORMS)]
    for answer in (*(pair.right for pair in scored), *(each.padded for each in padded)):
        assert answer.scores["confidence"] == len(answer.given.exchange.answer) / 10_000
    assert all(not pair.wrong.given.correct and pair.right.given.correct for pair in scored)


def make_short_question(number: int) -> TwinQuestion:
    """Return a question whose twins fit the window of a tiny model."""
    return TwinQuestion(
        number=number,
        id=str(number),
        passage=f"p{number % 2}",
        context=f"Ada has {number} cats. She feeds them.",
        kind=KINDS[number],
        question="How many cats?",
        short=str(number),
        wrong="9",
        sentence="Ada has {} cats.",
        more="They are fed.",
        quote="She feeds them.",
    )


def run_benchmark(monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    monkeypatch.setattr("sys.argv", ["twins.py", *options])
    main()


def test_the_benchmark_prints_its_tables_and_exports_its_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tables come as Markdown and as JSON, and the twins as a file for `real_answers.py`."""
    evaluator = tiny_evaluator()
    monkeypatch.setattr(twins, "load_evaluator", lambda folder: evaluator)
    monkeypatch.setattr(twins, "read_questions", lambda: [make_short_question(n) for n in range(6)])
    scores, exported = tmp_path / "scores.jsonl", tmp_path / "twins.jsonl"
    run_benchmark(monkeypatch, "--limit", "5", "--scores", str(scores))
    page = capsys.readouterr().out
    assert "\n| all | 50 |" in page
    assert "\n| style: table | 5 |" in page
    assert f"\n| error: {KINDS[4]} | 10 |" in page
    assert "\n| a word 600 times | 3 | 3 | 0 | 0 | 0.0 | – |" in page
    assert "\n| Held-out styles | 30 | 2 |" in page

    run_benchmark(monkeypatch, "--limit", "5", "--scores", str(scores), "--json")
    report = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["pairs"]) for row in report["rows"][:2]] == [
        ("all", 50),
        ("held-out styles", 15),
    ]
    assert report["padding"][0]["n"] == 3 * len(FORMS)
    assert report["spread"]["questions"] == 5

    run_benchmark(monkeypatch, "--export", str(exported))
    assert len(read_rated_answers(exported)) == 6 * 2 * len(STYLES)
