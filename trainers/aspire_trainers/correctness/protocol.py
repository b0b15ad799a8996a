"""What every kind of correctness does: it tells right answers from wrong ones, many at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from aspire_trainers.record import QARecord


@runtime_checkable
class Correctness(Protocol):
    """Tells right answers from wrong ones."""

    def grade(self, answers: Sequence[tuple[QARecord, str]]) -> list[bool]:
        """Return for each answer, given with the record that it answers, whether it is right.

        A record without references is answered rightly only by declining.

        Raises:
            InputError: an answer can't be graded.
        """
        ...
