"""Grades that cost something are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from langchain_core.runnables import RunnableLambda

from aspire_guard.errors import InputError
from aspire_trainers.correctness import ExactMatch, Judge
from aspire_trainers.correctness.cached_grades import CachedGrades, cache_grades
from aspire_trainers.record import QARecord

ANSWERS = [
    (QARecord(f"q{i}", f"Is {i} even?", references=("yes",)), "yes" if i % 2 == 0 else "no")
    for i in range(150)
]


def test_a_judge_that_fails_midway_is_not_asked_again(tmp_path: Path) -> None:
    """What it said before stands, and a third call asks for nothing."""
    asked: list[str] = []
    failing = True

    def reply(prompt: str) -> str:
        asked.append(prompt)
        if failing and len(asked) > 100:
            raise ConnectionError("429")
        return "yes" if "<answer>yes</answer>" in prompt else "no"

    judge = CachedGrades(Judge(RunnableLambda(reply), concurrency=1), tmp_path / "grades.jsonl")
    with pytest.raises(
        InputError, match="expected a reply to every answer, found ConnectionError: 429"
    ):
        judge.grade(ANSWERS)
    failing, before = False, len(asked)
    assert judge.grade(ANSWERS) == [i % 2 == 0 for i in range(150)]
    assert len(asked) - before == 150 - 64
    assert judge.grade(ANSWERS) == [i % 2 == 0 for i in range(150)]
    assert len(asked) - before == 150 - 64


def test_what_costs_nothing_is_not_kept(tmp_path: Path) -> None:
    """Overlap is as fast as reading it."""
    rule = ExactMatch()
    assert cache_grades(rule, tmp_path / "grades.jsonl") is rule
