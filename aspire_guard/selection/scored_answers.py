"""Scored answers as `aspire-guard score` writes them, read and checked.

JSONL in UTF-8, one answer per line. `group` and `cost` may be left out, but then in all lines:

    {"id": "q1", "selection_score": -0.31, "correct": true, "group": "billing", "cost": 2.5}

`sentences`, `signals` and `out_of_domain` may be left out of any line. Lines with one `question` and one `context`, or
one `question_id`, hold answers to one question. If they hold its id too, the later ones get an id of their own.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from aspire_guard.jsonl import (
    describe_json,
    make_line_error,
    parse_id,
    parse_text,
    shorten,
)
from aspire_guard.records.columns import NO_COLUMNS, Columns
from aspire_guard.records.fields import parse_label
from aspire_guard.records.reading import read_numbered_records
from aspire_guard.selection.arrays import Counts, Labels, Numbers
from aspire_guard.selection.question_groups import QuestionNumbers, draw_one_per_question
from aspire_guard.selection.scored_sentences import parse_sentences

_OTHER_NUMBERS = ("confidence", "log_likelihood", "p_correct")
_FEW = 100
_SCORE_AGAIN = "score the answer again, or leave it out"


@dataclass(frozen=True, eq=False)
class ScoredAnswers:
    """Labelled answers with their selection scores, in the order of the file.

    Attributes:
        source: the name of the file, without its folder.
        ids: the id of each answer, all different.
        selection_score: `(n,)`, in nats, finite, higher if the answer is more likely right.
        correct: `(n,)`, whether each answer is right.
        group: the tenant, task or other group of each answer, or None if the lines have no groups.
        cost: `(n,)`, the cost of each answer if it is released and wrong, ≥ 0, or None if the lines have no costs.
        confidence: `(n,)`, the evaluator's confidence when it scored, or None if a line has no confidence.
        baselines: other scores that every line has (`log_likelihood`, `p_correct`), `(n,)` each.
        evaluator: the evaluator that gave the scores (`Manifest.scorer`), or None if the lines name none.
        out_of_domain: `(n,)`, whether each answer is unlike those that its confidence was calibrated on, or None if
            no line tells. A line that does not tell counts as usual.
        question: `(n,)`, the number of the question that each answer answers, or None if a line names no question.
    """

    source: str
    ids: tuple[str, ...]
    selection_score: Numbers
    correct: Labels
    group: tuple[str, ...] | None = None
    cost: Numbers | None = None
    confidence: Numbers | None = None
    baselines: Mapping[str, Numbers] = field(default_factory=dict)
    evaluator: str | None = None
    out_of_domain: Labels | None = None
    question: Counts | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_questions(self) -> int:
        """The number of different questions, or of answers if the lines name no questions."""
        return len(self) if self.question is None else len(np.unique(self.question))

    def draw_one_per_question(self, *, within_groups: bool = False) -> ScoredAnswers:
        """Return one answer to each question, drawn by chance, since answers to one question depend on each other.

        Args:
            within_groups: draw one answer to each question of each group.
        """
        if self.question is None:
            return self
        groups = self.group if within_groups else None
        return self._select(draw_one_per_question(self.question, self.ids, groups))

    def _select(self, rows: Labels) -> ScoredAnswers:
        if rows.all():
            return self
        chosen = np.flatnonzero(rows).tolist()
        return replace(
            self,
            ids=tuple(self.ids[row] for row in chosen),
            selection_score=self.selection_score[rows],
            correct=self.correct[rows],
            group=None if self.group is None else tuple(self.group[row] for row in chosen),
            cost=None if self.cost is None else self.cost[rows],
            confidence=None if self.confidence is None else self.confidence[rows],
            baselines={name: scores[rows] for name, scores in self.baselines.items()},
            out_of_domain=None if self.out_of_domain is None else self.out_of_domain[rows],
            question=None if self.question is None else self.question[rows],
        )


def read_scored(path: str | Path, columns: Columns = NO_COLUMNS) -> ScoredAnswers:
    """Read labelled, scored answers. A million lines take seconds and some 300 MB.

    Raises:
        DatasetError: the file is missing, unreadable or empty, or a line is not a JSON object, has no finite
            `selection_score`, no boolean `correct`, the id of an earlier line that answers another question, another
            `evaluator` than the first line, malformed `sentences`, `signals` or `out_of_domain`, or has a `group` or
            `cost` while the first line has none, or the other way round.
    """
    path = Path(path)
    read_columns = _Columns(path)
    for number, record in read_numbered_records(path, columns):
        read_columns.add(number, record)
    return read_columns.to_answers()


def read_selection_scores(path: str | Path, columns: Columns = NO_COLUMNS) -> Numbers:
    """Read the selection scores alone, `(n,)`, of lines that need no label.

    Raises:
        DatasetError: the file is missing, unreadable or empty, or a line has no finite `selection_score`.
    """
    path = Path(path)
    scores = (
        _read_number(path, number, record, "selection_score")
        for number, record in read_numbered_records(path, columns)
    )
    return np.fromiter(scores, dtype=np.float64)


def find_warnings(scored: ScoredAnswers, provenance: Mapping[str, Any] | None = None) -> list[str]:
    """Return a sentence for each reason why these answers are a poor calibration set.

    Args:
        scored: the answers.
        provenance: the `Manifest.provenance` of the evaluator that scored them, to find answers that it was trained
            on.
    """
    reasons = []
    n_questions = scored.n_questions
    if n_questions < _FEW:
        reasons.append(
            f"expected {_FEW} labelled answers or more, found {n_questions}; bounds will be loose, label more"
        )
    if n_questions < len(scored):
        reasons.append(
            f"expected one answer to each question, found {len(scored):,} to {n_questions:,}; these are right or wrong "
            "together, so promises count one of them, drawn by chance; label answers to more questions"
        )
    if scored.correct.all() or not scored.correct.any():
        kind = "right" if scored.correct.all() else "wrong"
        reasons.append(
            f"expected right and wrong answers, found only {kind} ones; check the labels"
        )
    if (scored.selection_score == scored.selection_score[0]).all():
        reasons.append(
            "expected scores that differ, found one score for all answers; use an evaluator that ranks them"
        )
    datasets = [str(name) for name in (provenance or {}).get("datasets", ())]
    return reasons + _find_training_answers(scored, datasets)


def name_repetition(name: str, number: int) -> str:
    """Return an id of its own for a further answer under one id."""
    return f"{name} (line {number})"


class _Columns:
    """The lines read so far, by column. Each `_add` method reads one part of a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[str, int] = {}
        self.questions = QuestionNumbers(path)
        self._question_of_id: dict[str, int | None] = {}
        self.score, self.correct = array("d"), bytearray()
        self.others = {name: array("d") for name in _OTHER_NUMBERS}
        self.group: list[str] | None = None
        self.cost: array[float] | None = None
        self.evaluator: str | None = None
        self.out_of_domain = bytearray()
        self.tells_domain = False
        # Equal groups share one string, so that a million lines need little memory.
        self._group_names: dict[str, str] = {}

    def add(self, number: int, record: dict[str, Any]) -> None:
        """Add the line of this number."""
        self._add_id(number, record)
        self._check_evaluator(number, record)
        self.score.append(_read_number(self.path, number, record, "selection_score"))
        self._add_label(number, record)
        self._add_domain(number, record)
        parse_sentences(self.path, number, record)
        _check_signals(self.path, number, record)
        for key, column in self.others.items():
            value = record.get(key)
            if not isinstance(value, int | float) or isinstance(value, bool):
                continue
            if math.isfinite(value):
                column.append(value)
        if self.group is not None or self.cost is not None or "group" in record or "cost" in record:
            self._add_group_and_cost(number, record)

    def to_answers(self) -> ScoredAnswers:
        """Return the columns as arrays, without the optional ones that a line lacks."""
        complete = {
            name: np.frombuffer(column, dtype=np.float64)
            for name, column in self.others.items()
            if len(column) == len(self.lines)
        }
        return ScoredAnswers(
            source=self.path.name,
            ids=tuple(self.lines),
            selection_score=np.frombuffer(self.score, dtype=np.float64),
            correct=np.frombuffer(self.correct, dtype=np.bool_),
            group=None if self.group is None else tuple(self.group),
            cost=None if self.cost is None else np.frombuffer(self.cost, dtype=np.float64),
            confidence=complete.pop("confidence", None),
            baselines=complete,
            evaluator=self.evaluator,
            out_of_domain=(
                np.frombuffer(self.out_of_domain, dtype=np.bool_) if self.tells_domain else None
            ),
            question=self.questions.to_array(),
        )

    def _add_id(self, number: int, record: dict[str, Any]) -> None:
        name = parse_id(self.path, number, record)
        question = self.questions.add(number, record)
        if name not in self.lines:
            self.lines[name] = number
            self._question_of_id[name] = question
        elif question is not None and question == self._question_of_id[name]:
            self.lines[name_repetition(name, number)] = number
        else:
            found = f"the id {shorten(name)} of line {self.lines[name]} again"
            way_out = "rename one, or drop the repeated line"
            raise make_line_error(self.path, number, "an id of its own", found, way_out)

    def _check_evaluator(self, number: int, record: dict[str, Any]) -> None:
        evaluator = record.get("evaluator")
        if evaluator is not None:
            evaluator = parse_text(self.path, number, "evaluator", evaluator)
        if len(self.lines) == 1:
            self.evaluator = evaluator
        elif evaluator != self.evaluator:
            expected = "the evaluator of the first line"
            way_out = "score all answers with one evaluator, since each has its own scale"
            raise make_line_error(self.path, number, expected, shorten(evaluator), way_out)

    def _add_label(self, number: int, record: dict[str, Any]) -> None:
        self.correct.append(parse_label(self.path, number, record))

    def _add_domain(self, number: int, record: dict[str, Any]) -> None:
        is_outside = record.get("out_of_domain")
        if is_outside is not None and not isinstance(is_outside, bool):
            expected = '"out_of_domain" to hold true or false'
            found = describe_json(is_outside)
            raise make_line_error(self.path, number, expected, found, _SCORE_AGAIN)
        self.tells_domain |= is_outside is not None
        self.out_of_domain.append(bool(is_outside))

    def _add_group_and_cost(self, number: int, record: dict[str, Any]) -> None:
        if len(self.lines) == 1:
            self.group = [] if record.get("group") is not None else None
            self.cost = array("d") if record.get("cost") is not None else None
        for key, column in (("group", self.group), ("cost", self.cost)):
            is_expected = column is not None
            if (record.get(key) is not None) != is_expected:
                expected = f'"{key}" in all lines or in none'
                found = f"{'none' if is_expected else 'one'}, unlike the first line"
                raise make_line_error(self.path, number, expected, found, "add or remove it")
        if self.group is not None:
            group = parse_text(self.path, number, "group", record["group"])
            self.group.append(self._group_names.setdefault(group, group))
        if self.cost is not None:
            cost = _read_number(self.path, number, record, "cost")
            if cost < 0:
                expected, way_out = '"cost" of 0 or more', "give costs as positive numbers"
                raise make_line_error(self.path, number, expected, shorten(cost), way_out)
            self.cost.append(cost)


def _read_number(path: Path, number: int, record: dict[str, Any], key: str) -> float:
    value = record.get(key)
    # Larger integers have no float of their own. A bool is not a number here.
    if type(value) is int and abs(value) < 2**53:
        return float(value)
    if type(value) is float and math.isfinite(value):
        return value
    expected = f'"{key}" to hold a finite number'
    found = describe_json(value) if key in record else "no such key"
    raise make_line_error(path, number, expected, found, _SCORE_AGAIN)


def _check_signals(path: Path, number: int, record: dict[str, Any]) -> None:
    signals = record.get("signals")
    if signals is None:
        return
    if not isinstance(signals, dict):
        expected = '"signals" to hold an object of numbers'
        raise make_line_error(path, number, expected, describe_json(signals), _SCORE_AGAIN)
    for name in signals:
        _read_number(path, number, signals, name)


def _find_training_answers(scored: ScoredAnswers, datasets: list[str]) -> list[str]:
    """Return a sentence for each dataset of the evaluator's training from which these answers seem to come.

    Training names a record `<dataset>/<id>`, and a record without an id `<file>-<line>`. Provenance has no other ids.
    """
    reasons = []
    for dataset in dict.fromkeys(datasets):
        n_matches = _count_answers_of(dataset, scored)
        if n_matches:
            reasons.append(
                f"expected answers that the evaluator was not trained on, found {n_matches} that seem to come from its "
                f"dataset {dataset}; nothing holds for a threshold chosen on them, calibrate on other questions"
            )
    return reasons


def _count_answers_of(dataset: str, scored: ScoredAnswers) -> int:
    stem = Path(dataset).stem
    if scored.source == dataset or Path(scored.source).stem == stem:
        return len(scored)
    training_id = re.compile(rf"{re.escape(dataset)}/.*|{re.escape(stem)}-\d+", re.DOTALL)
    return sum(training_id.fullmatch(name) is not None for name in scored.ids)
