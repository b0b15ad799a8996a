"""Correctness by labels that came with the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aspire_trainers.correctness.protocol import Correctness
from aspire_trainers.record import QARecord

# The record's id and the answer.
AnswerKey = tuple[str, str]


class GivenLabels:
    """Grades answers by their labels, and those without a label by a rule.

    Args:
        labels: the labels that are known.
        otherwise: the rule for all other answers, such as references of other questions.
    """

    def __init__(self, labels: Mapping[AnswerKey, bool], otherwise: Correctness) -> None:
        self._labels = labels
        self._otherwise = otherwise

    def grade(self, answers: Sequence[tuple[QARecord, str]]) -> list[bool]:
        """Return the label of each answer, or the rule's verdict. The rule is not asked about labelled answers.

        Raises:
            InputError: an answer can't be graded.
        """
        unlabelled = [
            (record, answer)
            for record, answer in answers
            if (record.id, answer) not in self._labels
        ]
        verdicts = iter(self._otherwise.grade(unlabelled) if unlabelled else ())
        grades: list[bool] = []
        for record, answer in answers:
            label = self._labels.get((record.id, answer))
            grades.append(next(verdicts) if label is None else label)
        return grades
