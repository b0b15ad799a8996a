"""Scored answers: what `aspire-guard score` writes, read and checked.

JSONL in UTF-8, one answer a line; `group` and `cost` may be left out, of all lines together:

    {"id": "q1", "selection_score": -0.31, "correct": true, "group": "billing", "cost": 2.5}
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from aspire_guard.jsonl import (
    describe_json,
    make_line_error,
    parse_id,
    parse_text,
    read_numbered_objects,
    shorten,
)
from aspire_guard.selection.arrays import Labels, Numbers

_OTHER_NUMBERS = ("confidence", "log_likelihood", "p_correct")
_FEW = 100


@dataclass(frozen=True, eq=False)
class ScoredAnswers:
    """Labelled answers with their selection scores, in the order of the file.

    Attributes:
        source: the name of the file, without its folder.
        ids: of each answer, all different.
        selection_score: `(n,)`, in nats, finite, higher where the answer is more likely right.
        correct: `(n,)`, whether each answer is right.
        group: the tenant, task or other group of each answer; None where the lines have none.
        cost: `(n,)`, what each answer costs if it is released and wrong, ≥ 0; None where the lines have none.
        confidence: `(n,)`, what the evaluator's confidence was when it scored; None where a line has none.
        baselines: other scores that every line has (`log_likelihood`, `p_correct`), `(n,)` each.
        evaluator: whose scores these are (`Manifest.scorer`); None where the lines don't say.
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

    def __len__(self) -> int:
        return len(self.ids)


def read_scored(path: Path) -> ScoredAnswers:
    """Read labelled, scored answers; a million lines take seconds and some 300 MB.

    Raises:
        DatasetError: the file is missing, unreadable or empty; or a line is no JSON object, has no finite
            `selection_score`, no boolean `correct`, the id of an earlier line, another `evaluator` than the first
            line, or a `group` or `cost` where that has none (or none where it has one).
    """
    columns = _Columns(path)
    for number, value in read_numbered_objects(path):
        columns.add(number, value)
    return columns.answers()


def read_selection_scores(path: Path) -> Numbers:
    """Read the selection scores alone, `(n,)`, of lines that need no label.

    Raises:
        DatasetError: the file is missing, unreadable or empty, or a line has no finite `selection_score`.
    """
    return np.fromiter(_selection_scores(path), dtype=np.float64)


def warnings(scored: ScoredAnswers, provenance: Mapping[str, Any] | None = None) -> list[str]:
    """What makes these answers a poor calibration set, a sentence each.

    Args:
        scored: the answers.
        provenance: of the evaluator that scored them (`Manifest.provenance`), to find answers that it was trained on.
    """
    found = []
    if len(scored) < _FEW:
        found.append(
            f"expected {_FEW} labelled answers or more, found {len(scored)}; bounds will be loose, label more"
        )
    if scored.correct.all() or not scored.correct.any():
        kind = "right" if scored.correct.all() else "wrong"
        found.append(f"expected right and wrong answers, found only {kind} ones; check the labels")
    if (scored.selection_score == scored.selection_score[0]).all():
        found.append(
            "expected scores that differ, found one score for all answers; no threshold can tell them apart"
        )
    return found + _trained_on(
        scored, [str(name) for name in (provenance or {}).get("datasets", ())]
    )


class _Columns:
    """The lines so far, by column."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[str, int] = {}
        self.score, self.correct = array("d"), bytearray()
        self.others = {name: array("d") for name in _OTHER_NUMBERS}
        self.group: list[str] | None = None
        self.cost: array[float] | None = None
        self.evaluator: str | None = None
        # One string a group, not one a line.
        self._names: dict[str, str] = {}

    def add(self, number: int, value: dict[str, Any]) -> None:
        name = parse_id(self.path, number, value)
        if self.lines.setdefault(name, number) != number:
            found = f"the id {shorten(name)} of line {self.lines[name]} again"
            way_out = "rename one, or drop the repeated line"
            raise make_line_error(self.path, number, "an id of its own", found, way_out)
        evaluator = (
            None
            if value.get("evaluator") is None
            else parse_text(self.path, number, "evaluator", value["evaluator"])
        )
        if len(self.lines) == 1:
            self.evaluator = evaluator
        elif evaluator != self.evaluator:
            way_out = "score all answers with one: others' scores are on another scale"
            raise make_line_error(
                self.path, number, "the evaluator of the first line", shorten(evaluator), way_out
            )
        self.score.append(_finite(self.path, number, value, "selection_score"))
        right = value.get("correct")
        if right is not True and right is not False:
            found = describe_json(right) if "correct" in value else "no such key"
            raise make_line_error(
                self.path, number, '"correct" to hold true or false', found, "label the answer"
            )
        self.correct.append(right)
        for key, column in self.others.items():
            other = value.get(key)
            if (
                isinstance(other, int | float)
                and not isinstance(other, bool)
                and math.isfinite(other)
            ):
                column.append(other)
        if self.group is not None or self.cost is not None or "group" in value or "cost" in value:
            self._add_group_and_cost(number, value)

    def _add_group_and_cost(self, number: int, value: dict[str, Any]) -> None:
        if len(self.lines) == 1:
            self.group = [] if value.get("group") is not None else None
            self.cost = array("d") if value.get("cost") is not None else None
        for key, column in (("group", self.group), ("cost", self.cost)):
            if (value.get(key) is not None) != (column is not None):
                found = (
                    "none, unlike the first line"
                    if column is not None
                    else "one, unlike the first line"
                )
                raise make_line_error(
                    self.path, number, f'"{key}" in all lines or in none', found, "add or remove it"
                )
        if self.group is not None:
            group = parse_text(self.path, number, "group", value["group"])
            self.group.append(self._names.setdefault(group, group))
        if self.cost is not None:
            cost = _finite(self.path, number, value, "cost")
            if cost < 0:
                raise make_line_error(
                    self.path,
                    number,
                    '"cost" of 0 or more',
                    shorten(cost),
                    "give costs as positive numbers",
                )
            self.cost.append(cost)

    def answers(self) -> ScoredAnswers:
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
        )


def _selection_scores(path: Path) -> Iterator[float]:
    for number, value in read_numbered_objects(path):
        yield _finite(path, number, value, "selection_score")


def _finite(path: Path, number: int, value: dict[str, Any], key: str) -> float:
    found = value.get(key)
    if type(found) is int and abs(found) < 2**53:
        return float(found)
    if type(found) is float and math.isfinite(found):
        return found
    what = describe_json(found) if key in value else "no such key"
    raise make_line_error(
        path,
        number,
        f'"{key}" to hold a finite number',
        what,
        "score the answer again, or leave it out",
    )


def _trained_on(scored: ScoredAnswers, datasets: list[str]) -> list[str]:
    """A warning for each dataset of the evaluator's training from which these answers seem to come.

    Training names a record `<dataset>/<id>`, and a record without an id `<file>-<line>`; provenance has no other ids.
    """
    found = []
    for dataset in dict.fromkeys(datasets):
        stem = Path(dataset).stem
        its_id = re.compile(rf"{re.escape(dataset)}/.*|{re.escape(stem)}-\d+", re.DOTALL)
        same_file = scored.source == dataset or Path(scored.source).stem == stem
        matches = (
            len(scored)
            if same_file
            else sum(its_id.fullmatch(name) is not None for name in scored.ids)
        )
        if matches:
            found.append(
                f"expected answers that the evaluator was not trained on, found {matches} that seem to come from its "
                f"dataset {dataset}; nothing holds for a threshold chosen on them, calibrate on other questions"
            )
    return found
