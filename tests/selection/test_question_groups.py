"""Answers to one question, of which a promise counts one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aspire_guard.errors import DatasetError
from aspire_guard.selection.calibrators import PlattCalibrator
from aspire_guard.selection.question_groups import (
    draw_one_per_question,
    find_first_of_each_question,
)
from aspire_guard.selection.risk_control.threshold_request import ThresholdRequest
from aspire_guard.selection.scored_answers import ScoredAnswers, find_warnings, read_scored

QUESTIONS, ANSWERS = 80, 6
TARGET_RISK, DELTA = 0.1, 0.1


def draw_correlated_answers(rng: np.random.Generator) -> ScoredAnswers:
    """Draw questions with six answers each, which have nearly one score, and nine times in ten one label.

    The scores are uniform in [0, 1], and an answer with the score s is wrong with the probability 1 − s.
    """
    score = rng.uniform(size=QUESTIONS).repeat(ANSWERS)
    own_luck = rng.uniform(size=QUESTIONS * ANSWERS)
    shared_luck = rng.uniform(size=QUESTIONS).repeat(ANSWERS)
    luck = np.where(rng.uniform(size=len(score)) < 0.9, shared_luck, own_luck)
    return ScoredAnswers(
        source="simulated",
        ids=tuple(f"a{row}" for row in range(len(score))),
        selection_score=score + rng.uniform(-1e-9, 1e-9, size=len(score)),
        correct=luck < score,
        question=np.arange(QUESTIONS).repeat(ANSWERS),
    )


def find_true_risk(answers: ScoredAnswers) -> float:
    """Return the risk of the threshold that is chosen on these answers: the mean of 1 − s above it."""
    calibrator = PlattCalibrator(slope=1.0, intercept=0.0)
    request = ThresholdRequest(target_risk=TARGET_RISK, delta=DELTA)
    [threshold] = request.choose_thresholds(answers, calibrator, "2026-01-01")
    lowest = getattr(threshold, "selection_score", None)
    return 0.0 if lowest is None else (1 - max(lowest, 0.0)) / 2


def test_the_promise_holds_for_several_answers_to_a_question() -> None:
    """The risk exceeds the target in at most δ of the draws, and in more if the answers pass for independent."""
    rng = np.random.default_rng(5)
    draws = [draw_correlated_answers(rng) for _ in range(400)]
    grouped = [find_true_risk(answers) for answers in draws]
    ungrouped = []
    for answers in draws:
        ungrouped.append(find_true_risk(replace(answers, question=None)))
    assert np.mean(np.array(grouped) > TARGET_RISK) <= DELTA
    assert np.mean(np.array(ungrouped) > TARGET_RISK) > 1.5 * DELTA


def test_one_answer_to_each_question_is_drawn_by_its_id() -> None:
    """The draw depends on the ids alone, so that no order of the lines and no label can steer it."""
    questions = np.array([0, 1, 0, 2, 1, 0])
    ids = ["a", "b", "c", "d", "e", "f"]
    drawn = draw_one_per_question(questions, ids)
    assert questions[drawn].tolist() in ([0, 1, 2], [1, 0, 2], [0, 2, 1], [2, 1, 0], [1, 2, 0])
    again = draw_one_per_question(questions[::-1].copy(), ids[::-1])
    assert again[::-1].tolist() == drawn.tolist()
    by_group = draw_one_per_question(questions, ids, ["x", "x", "y", "x", "x", "y"])
    assert by_group.sum() == 4


def test_the_first_answer_to_a_question_stays_the_first() -> None:
    """A monitor's file grows, and what was counted must not change. Answers that are not eligible don't count."""
    questions = np.array([0, 1, 0, 1, 2])
    is_eligible = np.array([True, False, True, True, False])
    first = find_first_of_each_question(questions, is_eligible)
    assert first.tolist() == [True, False, False, True, False]
    assert find_first_of_each_question(questions[:2], is_eligible[:2]).tolist() == [True, False]


def write(tmp_path: Path, *lines: dict[str, Any]) -> Path:
    path = tmp_path / "scored.jsonl"
    common = {"selection_score": -0.5, "correct": True}
    path.write_text("".join(json.dumps(common | line) + "\n" for line in lines))
    return path


def test_lines_of_one_question_are_found(tmp_path: Path) -> None:
    """A question is its text over its context, or the id that the line gives it."""
    path = write(
        tmp_path,
        {"question": "Who?"},
        {"question": " who? "},
        {"question": "Who?", "context": "A."},
        {"question": "Who?", "context_reference": {"sha256": "1"}},
        {"question": "Who?", "question_id": 7},
        {"question": "Who now?", "question_id": "7"},
    )
    scored = read_scored(path)
    assert scored.question is not None
    assert scored.question.tolist() == [0, 0, 1, 2, 3, 3]
    assert scored.n_questions == 4
    assert len(scored.draw_one_per_question()) == 4


def test_lines_without_a_question_count_one_by_one(tmp_path: Path) -> None:
    """Nothing is known about answers if a line names no question."""
    scored = read_scored(write(tmp_path, {"question": "Who?"}, {"question": "Who?"}, {}))
    assert scored.question is None
    assert len(scored.draw_one_per_question()) == scored.n_questions == 3


def test_answers_to_one_question_may_share_its_id(tmp_path: Path) -> None:
    """`sample` gives all answers to a question the id of its record. Another question needs another id."""
    first, second = {"id": "q", "question": "Who?"}, {"id": "q", "question": "When?"}
    assert read_scored(write(tmp_path, first, first)).ids == ("q", "q (line 2)")
    with pytest.raises(DatasetError, match="line 2: expected an id of its own, found the id 'q'"):
        read_scored(write(tmp_path, first, second))


def test_several_answers_to_a_question_bring_a_warning(tmp_path: Path) -> None:
    """The warning counts answers and questions."""
    lines = [{"question": f"Who is {row // 2}?"} for row in range(6)]
    warnings = find_warnings(read_scored(write(tmp_path, *lines)))
    assert "expected 100 labelled answers or more, found 3" in warnings[0]
    assert "expected one answer to each question, found 6 to 3" in warnings[1]
