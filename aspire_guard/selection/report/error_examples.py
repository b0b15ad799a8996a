"""Single answers worth reading: confident mistakes, and right answers that are not released."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aspire_guard.jsonl import parse_id, read_numbered_objects
from aspire_guard.selection.arrays import Labels, Numbers
from aspire_guard.selection.calibration import Calibration
from aspire_guard.selection.scored_answers import ScoredAnswers

_MAX_EXAMPLES = 10
_MAX_CHARACTERS = 400


class Texts(NamedTuple):
    """The question and the answer of a line, or None for each that the line lacks."""

    question: str | None
    answer: str | None


class AnswerExample(NamedTuple):
    """An answer with its scores. Both `texts` are None if they are unknown."""

    id: str
    confidence: float
    score: float
    texts: Texts


def find_worst_mistakes(answers: ScoredAnswers) -> list[int]:
    """Return the indices of the wrong answers with the highest scores, best first."""
    return _find_highest(answers.selection_score, ~answers.correct)


def find_best_rejected(answers: ScoredAnswers, released: Labels) -> list[int]:
    """Return the indices of the right answers with the highest scores among those not released, best first."""
    return _find_highest(answers.selection_score, answers.correct & ~released)


def describe_examples(
    indices: Iterable[int],
    answers: ScoredAnswers,
    calibration: Calibration,
    texts: Mapping[str, Texts],
) -> list[AnswerExample]:
    """Return the answers at these indices, with their texts."""
    examples = []
    for index in indices:
        name = answers.ids[index]
        score = float(answers.selection_score[index])
        confidence = calibration.confidence(score)
        examples.append(AnswerExample(name, confidence, score, texts.get(name, Texts(None, None))))
    return examples


def read_texts(path: str | Path, ids: Iterable[str]) -> dict[str, Texts]:
    """Read `question` and `answer` of the lines with these ids. A value that is missing or not text is None.

    Raises:
        DatasetError: the file can't be read.
    """
    path = Path(path)
    wanted = set(ids)
    texts = {}
    for number, value in read_numbered_objects(path):
        name = parse_id(path, number, value)
        if name in wanted:
            texts[name] = Texts(_shorten(value.get("question")), _shorten(value.get("answer")))
    return texts


def _find_highest(scores: Numbers, eligible: Labels) -> list[int]:
    """Return the indices of the eligible answers with the highest scores, best first."""
    indices = np.flatnonzero(eligible)
    best_first = np.argsort(-scores[indices], kind="stable")
    highest: list[int] = indices[best_first][:_MAX_EXAMPLES].tolist()
    return highest


def _shorten(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    if len(value) <= _MAX_CHARACTERS:
        return value
    return f"{value[:_MAX_CHARACTERS]}… ({len(value):,} characters)"
