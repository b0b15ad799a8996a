"""Answers to one question: they are right or wrong together, so a promise counts one answer to each question.

Every test behind a promise takes the answers for independent draws. Five answers to one question are not five draws:
what makes the first of them wrong makes the others wrong too, and a bound on five times as many answers would fail far
more often than δ. One answer to each question, chosen without its score and its label, is an independent draw if the
questions are. The promise is then about a question drawn at random with one of its answers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aspire_guard.jsonl import parse_text
from aspire_guard.selection.arrays import Counts, Labels


class QuestionNumbers:
    """The number of the question of each line, in the order in which the questions first appear.

    A line belongs to the question that its `question_id` names, or else to that of its `question` over its context.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._numbers: list[int] = []
        self._number_of_key: dict[bytes, int] = {}
        self._is_complete = True

    def add(self, number: int, record: Mapping[str, Any]) -> int | None:
        """Add the line of this number, and return the number of its question, or None if it names no question.

        Raises:
            DatasetError: the question id is not text.
        """
        key = self._make_key(number, record)
        if key is None:
            self._is_complete = False
            return None
        question = self._number_of_key.setdefault(key, len(self._number_of_key))
        self._numbers.append(question)
        return question

    def to_array(self) -> Counts | None:
        """Return the numbers, `(n,)`, or None if a line names no question."""
        return np.array(self._numbers, dtype=np.int64) if self._is_complete else None

    def _make_key(self, number: int, record: Mapping[str, Any]) -> bytes | None:
        question_id, question = record.get("question_id"), record.get("question")
        if question_id is not None:
            if not isinstance(question_id, int) or isinstance(question_id, bool):
                question_id = parse_text(self.path, number, "question_id", question_id)
            key: list[Any] = ["id", str(question_id)]
        elif isinstance(question, str) and question.strip():
            # Spacing and capitals make no other question.
            key = [" ".join(question.casefold().split())]
            reference = record.get("context_reference")
            digest = reference.get("sha256") if isinstance(reference, Mapping) else None
            key += [record.get("context"), digest]
        else:
            return None
        # A digest, because a million contexts would fill the memory.
        return hashlib.blake2b(json.dumps(key).encode(), digest_size=16).digest()


def find_first_of_each_question(questions: Counts, is_eligible: Labels) -> Labels:
    """Find the first eligible answer to each question, `(n,)`. It stays the first when further answers follow."""
    rows = np.flatnonzero(is_eligible)
    _, first = np.unique(questions[rows], return_index=True)
    is_first = np.zeros(len(questions), dtype=np.bool_)
    is_first[rows[first]] = True
    return is_first


def draw_one_per_question(
    questions: Counts, ids: Sequence[str], groups: Sequence[str] | None = None
) -> Labels:
    """Draw an answer to each question by a digest of its id, which knows neither its score nor its label.

    Args:
        questions: the number of each answer's question, `(n,)`.
        ids: the id of each answer, all different.
        groups: the group of each answer, to draw one to each question of each group, or None.

    Returns:
        `(n,)`, true for the answers that were drawn.
    """
    drawn: dict[tuple[int, str | None], tuple[bytes, int]] = {}
    for row, (question, name) in enumerate(zip(questions.tolist(), ids, strict=True)):
        key = (question, None if groups is None else groups[row])
        lot = (hashlib.blake2b(name.encode(), digest_size=8).digest(), row)
        drawn[key] = min(drawn.get(key, lot), lot)
    is_drawn = np.zeros(len(ids), dtype=np.bool_)
    is_drawn[[row for _, row in drawn.values()]] = True
    return is_drawn
