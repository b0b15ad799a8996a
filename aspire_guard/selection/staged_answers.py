"""Calibration records with the answers of both stages: the chain's answer and the fallback's.

JSONL in UTF-8, one question per line. Both answers are there, whether or not the guard would have asked the fallback:

    {"id": "q1", "stages": {"answer": {"selection_score": -0.31, "confidence": 0.6, "correct": false},
                            "fallback": {"selection_score": -0.12, "confidence": 0.8, "correct": true}}}

`confidence` and `evaluator` may be left out of the stages. Each stage is an answer as `aspire-guard score` writes it.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from aspire_guard.jsonl import (
    describe_json,
    make_line_error,
    parse_id,
    parse_text,
    shorten,
)
from aspire_guard.records.columns import NO_COLUMNS, Columns
from aspire_guard.records.reading import read_numbered_records
from aspire_guard.selection.arrays import Labels, Numbers
from aspire_guard.selection.scored_answers import ScoredAnswers

STAGES = ("answer", "fallback")


@dataclass(frozen=True, eq=False)
class StagedAnswers:
    """Questions with the answers of both stages. The columns of `(n, 2)` arrays are the answer and the fallback.

    Attributes:
        source: the name of the file, without its folder.
        ids: the id of each question, all different.
        selection_score: `(n, 2)`, in nats, finite, higher if the answer is more likely right.
        correct: `(n, 2)`, whether each answer is right.
        confidence: `(n, 2)`, the evaluator's confidences when it scored, or None if an answer has no confidence.
        evaluator: the evaluator that gave the scores (`Manifest.scorer`), or None if the records name none.
    """

    source: str
    ids: tuple[str, ...]
    selection_score: Numbers
    correct: Labels
    confidence: Numbers | None = None
    evaluator: str | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def stage(self, name: str) -> ScoredAnswers:
        """Return the answers of one stage."""
        column = STAGES.index(name)
        return ScoredAnswers(
            source=self.source,
            ids=self.ids,
            selection_score=self.selection_score[:, column],
            correct=self.correct[:, column],
            confidence=None if self.confidence is None else self.confidence[:, column],
            evaluator=self.evaluator,
        )


def read_staged(path: str | Path, columns: Columns = NO_COLUMNS) -> StagedAnswers:
    """Read calibration records with the answers of both stages.

    Raises:
        DatasetError: the file is missing, unreadable or empty, or a line lacks a stage, its finite `selection_score`
            or its boolean `correct`, has a `confidence` outside [0, 1] or an `evaluator` other than the first answer's,
            or repeats an id.
    """
    path = Path(path)
    lines: dict[str, int] = {}
    scores, correct, confidences = array("d"), bytearray(), array("d")
    evaluator: str | None = None
    for number, record in read_numbered_records(path, columns):
        name = parse_id(path, number, record)
        if lines.setdefault(name, number) != number:
            found = f"the id {shorten(name)} of line {lines[name]} again"
            raise make_line_error(
                path, number, "an id of its own", found, "rename one, or drop the repeated line"
            )
        for stage in STAGES:
            answer = _read_stage(path, number, record, stage)
            scores.append(_read_score(path, number, stage, answer))
            correct.append(_read_label(path, number, stage, answer))
            confidences.extend(_read_confidence(path, number, stage, answer))
            scorer = _read_evaluator(path, number, answer)
            if len(scores) == 1:
                evaluator = scorer
            elif scorer != evaluator:
                raise make_line_error(
                    path,
                    number,
                    "the evaluator of the first answer",
                    shorten(scorer),
                    "score the answers of both stages with one evaluator, as the guard does",
                )
    return StagedAnswers(
        source=path.name,
        ids=tuple(lines),
        selection_score=_as_columns(scores),
        correct=np.frombuffer(correct, dtype=np.bool_).reshape(-1, len(STAGES)),
        confidence=_as_columns(confidences) if len(confidences) == len(scores) else None,
        evaluator=evaluator,
    )


def _as_columns(values: Sequence[float]) -> Numbers:
    return np.array(values, dtype=np.float64).reshape(-1, len(STAGES))


def _read_stage(path: Path, number: int, record: dict[str, Any], stage: str) -> dict[str, Any]:
    stages = record.get("stages")
    if not isinstance(stages, dict):
        found = describe_json(stages)
    elif not isinstance(stages.get(stage), dict):
        found = f"no object {shorten(stage)} in it"
    else:
        answer: dict[str, Any] = stages[stage]
        return answer
    raise make_line_error(
        path, number, '"stages" to hold "answer" and "fallback"', found, "add both answers"
    )


def _read_score(path: Path, number: int, stage: str, answer: dict[str, Any]) -> float:
    score = answer.get("selection_score")
    # A comparison with NaN is false, so NaN is refused too.
    if _is_number(score) and abs(score) <= sys.float_info.max:
        return float(score)
    expected = f'"selection_score" of "{stage}" to hold a finite number'
    raise make_line_error(path, number, expected, describe_json(score), "score the answer again")


def _read_label(path: Path, number: int, stage: str, answer: dict[str, Any]) -> bool:
    correct = answer.get("correct")
    if isinstance(correct, bool):
        return correct
    expected = f'"correct" of "{stage}" to hold true or false'
    raise make_line_error(path, number, expected, describe_json(correct), "label the answer")


def _read_confidence(path: Path, number: int, stage: str, answer: dict[str, Any]) -> list[float]:
    """Return the confidence in a list, which is empty if the answer has no confidence."""
    confidence = answer.get("confidence")
    if confidence is None:
        return []
    if _is_number(confidence) and 0 <= confidence <= 1:
        return [float(confidence)]
    expected = f'"confidence" of "{stage}" to hold a probability'
    way_out = "score the answer again, or leave the confidence out"
    raise make_line_error(path, number, expected, describe_json(confidence), way_out)


def _read_evaluator(path: Path, number: int, answer: dict[str, Any]) -> str | None:
    evaluator = answer.get("evaluator")
    return None if evaluator is None else parse_text(path, number, "evaluator", evaluator)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
