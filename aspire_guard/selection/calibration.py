"""calibration.json: from a selection score to a probability, and to the thresholds above which answers are released."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field, model_validator

from aspire_guard.selection.arrays import Labels, Numbers
from aspire_guard.selection.calibrators import AnyCalibrator, fit_calibrator

Objective = Literal["risk", "coverage", "cost", "accuracy"]

LEAST_RELEASED = 10


class _FrozenModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Guarantee(_FrozenModel):
    """The promise of a threshold about future answers to questions like those it was calibrated on.

    Attributes:
        target_risk: the largest share of wrong answers among the released ones, in (0, 1).
        delta: the probability, over the draw of the calibration answers, that the promise fails, in (0, 1).
        n: the number of labelled answers behind the promise.
        family: the number of thresholds that share δ and hold together, or 1 for a single threshold.
        method: the test behind the promise.
        date: the date of the calibration, ISO 8601.
    """

    target_risk: float = Field(gt=0, lt=1)
    delta: float = Field(gt=0, lt=1)
    n: int = Field(ge=1)
    family: int = Field(default=1, ge=1)
    method: str
    date: str

    @property
    def sentence(self) -> str:
        """The promise in one plain sentence."""
        together = f", for all {self.family} thresholds at once," if self.family > 1 else ","
        return (
            f"with probability {_format_percent(1 - self.delta)} over the calibration answers{together} at most "
            f"{_format_percent(self.target_risk)} of the released answers are wrong, for questions like the {self.n:,} "
            f"calibrated on ({self.date})"
        )


class Threshold(_FrozenModel):
    """The lowest confidence of a band such as "accept", for all answers or for one group.

    Attributes:
        name: the band that begins at it.
        group: the group that it is for, or None if it is for every group without a threshold of its own.
        confidence: the lowest confidence that is released, in [0, 1]. A threshold of 1 releases nothing.
        selection_score: the same threshold on the selection score, or None if nothing is released or it is unknown.
        objective: the quantity that was asked for, e.g. "risk".
        target: the value that was asked for, e.g. 0.05.
        coverage: the share of the calibration answers that it releases, or None if it is unknown.
        risk: the share of wrong answers among them, or None if nothing is released or it is unknown.
        risk_bound: the upper bound on future risk that goes with the guarantee, or None without a guarantee.
        guarantee: the promise, or None if it promises nothing.
    """

    name: str = "accept"
    group: str | None = None
    confidence: float = Field(ge=0, le=1)
    selection_score: float | None = Field(default=None, allow_inf_nan=False)
    objective: Objective
    target: float = Field(allow_inf_nan=False)
    coverage: float | None = Field(default=None, ge=0, le=1)
    risk: float | None = Field(default=None, ge=0, le=1)
    risk_bound: float | None = Field(default=None, ge=0, le=1)
    guarantee: Guarantee | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.releases and self.selection_score is not None:
            raise ValueError(
                f"expected no selection score if nothing is released, found {self.selection_score}; set it to null"
            )
        return self

    @property
    def releases(self) -> bool:
        """True if an answer can reach the threshold."""
        return self.confidence < 1


class Calibration(_FrozenModel):
    """The calibrator of an evaluator, and its thresholds.

    Attributes:
        calibrator: maps selection scores to confidences.
        thresholds: at most one threshold of each name and group.
        n: the number of labelled answers that the calibrator was fitted on.
        date: the date of the calibration, ISO 8601.
        source: the name of the file with these answers.
    """

    calibrator: AnyCalibrator
    thresholds: tuple[Threshold, ...] = ()
    n: int = Field(ge=0)
    date: str
    source: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        keys = [(threshold.name, threshold.group) for threshold in self.thresholds]
        if len(set(keys)) < len(keys):
            raise ValueError(
                "expected one threshold of each name and group, found two; keep one of them"
            )
        return self

    def confidence(self, selection_score: float) -> float:
        """Return the probability of being right, in [0, 1): a threshold of 1 releases nothing. NaN stays NaN."""
        return self.calibrator.confidence(selection_score)

    def threshold_for(self, group: str | None = None, name: str = "accept") -> Threshold | None:
        """Return the threshold of a group, or the common one if it has none of its own, or None without either."""
        by_group = {
            threshold.group: threshold for threshold in self.thresholds if threshold.name == name
        }
        return by_group.get(group) or by_group.get(None)

    def released(
        self, selection_scores: Numbers, groups: Sequence[str | None] | None = None
    ) -> Labels:
        """Tell which answers the guard would release, `(n,)`, by the comparison that the guard makes.

        Args:
            selection_scores: `(n,)`, in nats.
            groups: the group of each answer, or None if the answers have no groups.
        """
        answer_groups = groups or (None,)
        lowest_confidences = {
            group: self._get_lowest_confidence(group) for group in set(answer_groups)
        }
        least = np.array([lowest_confidences[group] for group in answer_groups])
        released: Labels = self.calibrator.confidences(selection_scores) >= least
        return released

    @property
    def threshold(self) -> float:
        """The lowest confidence that is released if no group is given. A threshold of 1 releases nothing."""
        return self._get_lowest_confidence(None)

    @property
    def guarantee(self) -> str | None:
        """The promise of that threshold about future answers in one sentence, or None if it promises nothing."""
        accept = self.threshold_for()
        return accept.guarantee.sentence if accept and accept.guarantee else None

    @property
    def target_accuracy(self) -> float | None:
        """The accuracy that was asked for, or None if another objective was, or if no threshold reached it."""
        accept = self.threshold_for()
        if accept is None or not accept.releases or accept.objective != "accuracy":
            return None
        return accept.target

    def _get_lowest_confidence(self, group: str | None) -> float:
        accept = self.threshold_for(group)
        return accept.confidence if accept else 1.0


def fit_calibration(
    scores: ArrayLike, correct: ArrayLike, *, target_accuracy: float, date: str
) -> Calibration:
    """Fit the confidence on labelled answers, and take the lowest threshold whose released answers reach the target.

    The target is met on these very answers: it is an estimate, not a guarantee about others.

    Args:
        scores: selection scores, `(n,)`.
        correct: whether each answer is right, `(n,)`.
        target_accuracy: the wanted accuracy of released answers, in (0, 1].
        date: written into the result.
    """
    score, right = np.asarray(scores, dtype=float), np.asarray(correct, dtype=bool)
    calibrator = fit_calibrator(score, right, method="platt").calibrator
    threshold = _find_lowest_threshold(score, calibrator.confidences(score), right, target_accuracy)
    return Calibration(calibrator=calibrator, thresholds=(threshold,), n=len(right), date=date)


def _find_lowest_threshold(
    score: Numbers, confidence: Numbers, right: Labels, target_accuracy: float
) -> Threshold:
    order = np.argsort(-score, kind="stable")
    ranked = confidence[order]
    released = np.arange(1, len(right) + 1)
    n_right = np.cumsum(right[order])
    # A threshold lies between two different confidences: ties are released together.
    is_candidate = np.append(ranked[:-1] > ranked[1:], True)[: len(right)]
    reaches_target = n_right / released >= target_accuracy
    passing = np.flatnonzero(is_candidate & reaches_target & (released >= LEAST_RELEASED))
    if not len(passing):
        return Threshold(confidence=1.0, objective="accuracy", target=target_accuracy, coverage=0.0)
    lowest = passing[-1]
    n_wrong = released[lowest] - n_right[lowest]
    return Threshold(
        confidence=float(ranked[lowest]),
        selection_score=float(score[order[lowest]]),
        objective="accuracy",
        target=target_accuracy,
        coverage=float(released[lowest] / len(right)),
        risk=float(n_wrong / released[lowest]),
    )


def _format_percent(share: float) -> str:
    return f"{100 * share:.10g} %"
