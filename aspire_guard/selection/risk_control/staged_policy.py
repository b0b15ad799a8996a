"""Several stages together: release the answer, try the fallback, ask a reviewer or abstain, at the least cost.

Calibration records hold the answers of both stages, whether or not the second would have been asked for:

    {"id": "q1", "stages": {"answer": {"selection_score": -0.31, "correct": false},
                            "fallback": {"selection_score": -0.12, "correct": true}}}

The promise is about all that is released, by either stage together. One half of the records proposes policies: of
every combination of cuts from a grid, those that no other beats in both risk and cost, from the safest to the cheapest
("Pareto testing", Laufer-Goldshtein et al. 2023). The other half tests them in this order by the exact binomial
p-value, each at the whole of δ, until one fails (fixed sequence). For that half the policies are fixed beforehand, so
of all policies that pass none exceeds the target, with probability 1 − δ.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from aspire_guard.errors import InputError
from aspire_guard.jsonl import (
    describe_json,
    make_line_error,
    parse_id,
    read_numbered_objects,
    shorten,
)
from aspire_guard.selection.calibration import Guarantee
from aspire_guard.selection.risk_control.candidate_thresholds import (
    Calibrator,
    NoThreshold,
    least_promised,
    more_needed,
)
from aspire_guard.selection.risk_control.policy_grid import (
    STAGES,
    PolicyGrid,
    StagedAnswers,
    StagedCosts,
)

__all__ = ["StagedAnswers", "StagedCosts", "StagedPolicy", "choose_staged_policy", "read_staged"]

METHOD = "Pareto testing: half of the records proposes, exact binomial tests in fixed sequence on the other half"


class StagedPolicy(BaseModel):
    """The cheapest policy found that keeps its promise.

    Attributes:
        accept: the least confidence of an answer that is released, in [0, 1]; 1 releases none.
        fallback: the least confidence of an answer below `accept` for which the fallback is asked.
        accept_fallback: the least confidence of the fallback's answer that is released.
        otherwise: what becomes of all other questions.
        coverage: the share of questions that are answered, on the testing half, as all figures here.
        asked: the share of questions for which the fallback is asked.
        risk: the share of wrong answers among the released ones; None where none is released.
        cost: the mean cost of a question.
        guarantee: what it promises; None where nothing is released.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    accept: float = Field(ge=0, le=1)
    fallback: float = Field(ge=0, le=1)
    accept_fallback: float = Field(ge=0, le=1)
    otherwise: Literal["review", "abstain"]
    coverage: float
    asked: float
    risk: float | None
    cost: float
    guarantee: Guarantee | None

    def after_answer(self, confidence: float) -> Literal["accept", "fallback", "review", "abstain"]:
        """What to do with an answer of this confidence."""
        if confidence >= self.accept:
            return "accept"
        return "fallback" if confidence >= self.fallback else self.otherwise

    def after_fallback(self, confidence: float) -> Literal["accept", "review", "abstain"]:
        """What to do with the fallback's answer of this confidence."""
        return "accept" if confidence >= self.accept_fallback else self.otherwise


def read_staged(path: Path) -> StagedAnswers:
    """Read calibration records with the answers of both stages.

    Raises:
        DatasetError: the file is missing, unreadable or empty; or a line lacks a stage, its finite `selection_score`
            or its boolean `correct`, or repeats an id.
    """
    lines: dict[str, int] = {}
    rows = []
    for number, value in read_numbered_objects(path):
        name = parse_id(path, number, value)
        if lines.setdefault(name, number) != number:
            found = f"the id {shorten(name)} of line {lines[name]} again"
            raise make_line_error(
                path, number, "an id of its own", found, "rename one, or drop the repeated line"
            )
        rows.append([_stage(path, number, value, stage) for stage in STAGES])
    values = np.array(rows, dtype=np.float64)
    return StagedAnswers(values[:, :, 0], values[:, :, 1].astype(bool))


def choose_staged_policy(
    staged: StagedAnswers,
    *,
    calibrators: Mapping[str, Calibrator],
    costs: StagedCosts,
    target_risk: float,
    date: str,
    delta: float = 0.05,
) -> StagedPolicy | NoThreshold:
    """The cheapest policy such that, with probability 1 − δ, at most this share of all released answers is wrong.

    Args:
        staged: the calibration records.
        calibrators: of the stages "answer" and "fallback". They may be fitted on the same records: a calibrator that
            only ever rises changes no answer's place.
        costs: what each outcome costs.
        target_risk: in (0, 1).
        date: written into the guarantee.
        delta: δ, in (0, 1).

    Raises:
        InputError: fewer than two records, a stage without a calibrator, or a target or δ outside (0, 1).
    """
    if (
        len(staged) < 2
        or set(calibrators) != set(STAGES)
        or not 0 < target_risk < 1
        or not 0 < delta < 1
    ):
        found = f"{len(staged)} records, calibrators of {sorted(calibrators)}, target risk {target_risk:g}, δ {delta:g}"
        raise InputError(
            "staged policy: expected two records or more, calibrators of answer and fallback, a target risk and a δ "
            f"between 0 and 1, found {found}; fix that"
        )
    grid = PolicyGrid(staged, calibrators)
    certified = grid.certified(costs, target_risk, delta)
    if not len(certified):
        return _nothing(grid, costs, target_risk, delta)
    cost = grid.proposing.costs(costs)[certified]
    if cost.min() >= costs.otherwise_cost:
        return _releasing_nothing(costs)
    best = int(certified[cost.argmin()])
    accept, fallback, accept_fallback = grid.cuts_of(best)
    tested = grid.testing
    return StagedPolicy(
        accept=accept,
        fallback=fallback,
        accept_fallback=accept_fallback,
        otherwise=costs.otherwise,
        coverage=float(tested.released[best] / tested.n),
        asked=float(tested.asked[best] / tested.n),
        risk=float(tested.wrong[best] / tested.released[best]),
        cost=float(tested.costs(costs)[best]),
        guarantee=Guarantee(
            target_risk=target_risk, delta=delta, n=len(staged), method=METHOD, date=date
        ),
    )


def _releasing_nothing(costs: StagedCosts) -> StagedPolicy:
    return StagedPolicy(
        accept=1.0,
        fallback=1.0,
        accept_fallback=1.0,
        otherwise=costs.otherwise,
        coverage=0.0,
        asked=0.0,
        risk=None,
        cost=costs.otherwise_cost,
        guarantee=None,
    )


def _nothing(grid: PolicyGrid, costs: StagedCosts, target_risk: float, delta: float) -> NoThreshold:
    """What could have been promised instead."""
    best = least_promised(target_risk, lambda risk: len(grid.certified(costs, risk, delta)) > 0)
    coverage = 0.0
    if best < 1:
        coverage = float(
            (grid.testing.released[grid.certified(costs, best, delta)] / grid.testing.n).max()
        )
    released = grid.proposing.released + grid.testing.released
    # Laplace's rule, against policies that were right a few times by luck.
    risk = (grid.proposing.wrong + grid.testing.wrong + 1) / (released + 2)
    missing = more_needed(risk, released / 2, grid.proposing.n + grid.testing.n, target_risk, delta)
    return NoThreshold(
        target_risk=target_risk,
        delta=delta,
        best_risk=best,
        best_coverage=coverage,
        more_needed=missing,
    )


def _stage(path: Path, number: int, value: dict[str, Any], stage: str) -> tuple[float, bool]:
    stages = value.get("stages")
    answer = stages.get(stage) if isinstance(stages, dict) else None
    if not isinstance(answer, dict):
        found = (
            describe_json(stages)
            if not isinstance(stages, dict)
            else f"no object {shorten(stage)} in it"
        )
        raise make_line_error(
            path, number, '"stages" to hold "answer" and "fallback"', found, "add both answers"
        )
    score, right = answer.get("selection_score"), answer.get("correct")
    if (
        isinstance(score, bool)
        or not isinstance(score, int | float)
        or not abs(score) <= sys.float_info.max
    ):
        what = f'"selection_score" of "{stage}" to hold a finite number'
        raise make_line_error(path, number, what, describe_json(score), "score the answer again")
    if not isinstance(right, bool):
        what = f'"correct" of "{stage}" to hold true or false'
        raise make_line_error(path, number, what, describe_json(right), "label the answer")
    return float(score), right
