"""A judge's grades, kept as they come: each costs a call, and a second call may say something else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aspire_trainers.correctness.judge import AT_ONCE, Judge
from aspire_trainers.correctness.protocol import Correctness
from aspire_trainers.record import QARecord
from aspire_trainers.run.append_log import AppendOnlyJsonl


class CachedGrades:
    """Grades as `judge` does; what a file holds of the same answers already is not asked for again.

    Args:
        judge: what is asked.
        file: of these answers alone, which come in the same order every time.
    """

    def __init__(self, judge: Judge, file: Path) -> None:
        self.judge, self.file = judge, file

    def grade(self, answers: Sequence[tuple[QARecord, str]]) -> list[bool]:
        """As the judge; whatever ends it, at most the last 64 grades are lost.

        Raises:
            InputError: as the judge.
        """
        with AppendOnlyJsonl(self.file) as log:
            for start in range(sum(map(len, log.values)), len(answers), AT_ONCE):
                log.append(self.judge.grade(answers[start : start + AT_ONCE]))
        return [grade for grades in log.values for grade in grades]


def cache_grades(correctness: Correctness, file: Path) -> Correctness:
    """The rule, its grades kept in `file` where they cost something."""
    return CachedGrades(correctness, file) if isinstance(correctness, Judge) else correctness
