"""The interface of every kind of correctness, and its simplest kind: a function of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from aspire_guard.errors import InputError
from aspire_guard.jsonl import shorten
from aspire_trainers.record import QARecord


@runtime_checkable
class Correctness(Protocol):
    """A rule that tells right answers from wrong ones, many at once."""

    def grade(self, answers: Sequence[tuple[QARecord, str]]) -> list[bool]:
        """Tell for each answer, given with its record, whether it is right.

        If a record has no references, only declining is right.

        Raises:
            InputError: an answer can't be graded.
        """
        ...


class GradingFunction:
    """Correctness by a function that is asked about one answer at a time.

    Args:
        function: takes a record and an answer, and tells whether the answer is right.
    """

    def __init__(self, function: Callable[[QARecord, str], bool | np.bool_]) -> None:
        self.function = function

    def grade(self, answers: Sequence[tuple[QARecord, str]]) -> list[bool]:
        """Return the function's verdict on each answer.

        Raises:
            InputError: the function raises, or returns something other than True or False.
        """
        return [self._grade(record, answer) for record, answer in answers]

    def _grade(self, record: QARecord, answer: str) -> bool:
        name = getattr(self.function, "__name__", type(self.function).__name__)
        try:
            is_right = self.function(record, answer)
        except Exception as error:
            found = f"{type(error).__name__}: {error} on {shorten(record.id)}"
            raise InputError(
                f"{name}: expected True or False, found {found}; fix the function"
            ) from error
        if not isinstance(is_right, bool | np.bool_):
            found = f"a value of type {type(is_right).__name__} on {shorten(record.id)}"
            raise InputError(
                f"{name}: expected True or False, found {found}; apply a threshold in the function"
            )
        return bool(is_right)
