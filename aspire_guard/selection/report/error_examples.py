"""Single answers that are worth reading: confident mistakes, and right answers that stay unreleased."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aspire_guard.jsonl import id_field, numbered_objects
from aspire_guard.selection.arrays import Labels, Numbers
from aspire_guard.selection.calibration import Calibration
from aspire_guard.selection.scored_answers import ScoredAnswers

HOW_MANY = 10

_LONGEST = 400


class Texts(NamedTuple):
    """The question and the answer of a line; None where it has none."""

    question: str | None
    answer: str | None


class AnswerExample(NamedTuple):
    """One answer; `texts` has nothing in it where its line has no text."""

    id: str
    confidence: float
    score: float
    texts: Texts


def find_worst_mistakes(answers: ScoredAnswers) -> list[int]:
    """The places of the wrong answers that score highest, best first."""
    return _highest(answers.selection_score, ~answers.correct)


def find_best_rejected(answers: ScoredAnswers, released: Labels) -> list[int]:
    """The places of the right answers that are not released and score highest, best first."""
    return _highest(answers.selection_score, answers.correct & ~released)


def find_examples(
    places: Iterable[int],
    answers: ScoredAnswers,
    calibration: Calibration,
    texts: Mapping[str, Texts],
) -> list[AnswerExample]:
    """The answers in these places, with their texts."""
    return [
        AnswerExample(
            answers.ids[place],
            calibration.confidence(float(answers.selection_score[place])),
            float(answers.selection_score[place]),
            texts.get(answers.ids[place], Texts(None, None)),
        )
        for place in places
    ]


def read_texts(path: Path, ids: Iterable[str]) -> dict[str, Texts]:
    """Read `question` and `answer` of the lines with these ids; what is no text, or missing, is None.

    Raises:
        DatasetError: the file can't be read.
    """
    wanted, found = set(ids), {}
    for number, value in numbered_objects(path):
        name = id_field(path, number, value)
        if name in wanted:
            found[name] = Texts(_shortened(value.get("question")), _shortened(value.get("answer")))
    return found


def _highest(score: Numbers, kept: Labels) -> list[int]:
    places = np.flatnonzero(kept)
    best: list[int] = places[np.argsort(-score[places], kind="stable")][:HOW_MANY].tolist()
    return best


def _shortened(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    return value if len(value) <= _LONGEST else f"{value[:_LONGEST]}… ({len(value):,} characters)"
