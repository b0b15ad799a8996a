"""Correctness by a function of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from aspire_guard.errors import InputError
from aspire_guard.jsonl import shorten
from aspire_trainers.record import QARecord


class Function:
    """Asks a function about one answer after another.

    Args:
        function: takes a record and an answer, and tells whether the answer is right.
    """

    def __init__(self, function: Callable[[QARecord, str], bool | np.bool_]) -> None:
        self.function = function

    def grade(self, answers: Sequence[tuple[QARecord, str]]) -> list[bool]:
        """Return what the function says of each answer.

        Raises:
            InputError: it raises, or says something else than True or False.
        """
        return [self._grade(record, answer) for record, answer in answers]

    def _grade(self, record: QARecord, answer: str) -> bool:
        name = getattr(self.function, "__name__", type(self.function).__name__)
        try:
            right = self.function(record, answer)
        except Exception as error:
            found = f"{type(error).__name__}: {error} on {shorten(record.id)}"
            raise InputError(
                f"{name}: expected True or False, found {found}; fix the function"
            ) from error
        if not isinstance(right, bool | np.bool_):
            found = f"a value of type {type(right).__name__} on {shorten(record.id)}"
            raise InputError(
                f"{name}: expected True or False, found {found}; apply a threshold in the function"
            )
        return bool(right)
