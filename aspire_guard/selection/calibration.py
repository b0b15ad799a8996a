"""calibration.json: from a selection score to a probability, and to the thresholds above which answers are released."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field, model_validator

from aspire_guard.selection.arrays import Labels, Numbers
from aspire_guard.selection.calibrators import Calibrator, fit_calibrator

LEAST_RELEASED = 10


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Guarantee(_Part):
    """What a threshold promises of future answers to questions like those it was calibrated on.

    Attributes:
        target_risk: the largest share of wrong answers among the released ones, in (0, 1).
        delta: the probability, over the draw of the calibration answers, that the promise fails, in (0, 1).
        n: labelled answers it rests on.
        family: how many thresholds share δ and hold together; 1: this one alone.
        method: the test behind it.
        date: when, ISO 8601.
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
            f"with probability {_percent(1 - self.delta)} over the calibration answers{together} at most "
            f"{_percent(self.target_risk)} of the released answers are wrong, for questions like the {self.n:,} "
            f"calibrated on ({self.date})"
        )


class Threshold(_Part):
    """One cut: answers at or above it are released, or go to the band that it opens.

    Attributes:
        name: the band it opens.
        group: the group it is for; None: every group that has none of its own.
        confidence: the least confidence that is released, in [0, 1]; 1 releases nothing.
        selection_score: the same cut on the selection score; None where nothing is released, or it isn't known.
        objective: what was asked for.
        target: how much of it, e.g. a risk of 0.05.
        coverage: the share of the calibration answers that it releases; None where it isn't known.
        risk: the share of wrong ones among these; None where nothing is released, or it isn't known.
        risk_bound: the upper bound on future risk that goes with the guarantee; None without one.
        guarantee: what it promises; None: nothing.
    """

    name: str = "accept"
    group: str | None = None
    confidence: float = Field(ge=0, le=1)
    selection_score: float | None = Field(default=None, allow_inf_nan=False)
    objective: Literal["risk", "coverage", "cost", "accuracy"]
    target: float = Field(allow_inf_nan=False)
    coverage: float | None = Field(default=None, ge=0, le=1)
    risk: float | None = Field(default=None, ge=0, le=1)
    risk_bound: float | None = Field(default=None, ge=0, le=1)
    guarantee: Guarantee | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.releases and self.selection_score is not None:
            raise ValueError(
                f"expected no selection score where nothing is released, found {self.selection_score}; set it to null"
            )
        return self

    @property
    def releases(self) -> bool:
        """Whether any answer can reach it."""
        return self.confidence < 1


class Calibration(_Part):
    """The calibrator of an evaluator, and its thresholds.

    Attributes:
        calibrator: from selection score to confidence.
        thresholds: at most one of each name and group.
        n: labelled answers the calibrator was fitted on.
        date: when, ISO 8601.
        source: the name of the file with these answers.
    """

    calibrator: Calibrator
    thresholds: tuple[Threshold, ...] = ()
    n: int = Field(ge=0)
    date: str
    source: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        cuts = [(threshold.name, threshold.group) for threshold in self.thresholds]
        if len(set(cuts)) < len(cuts):
            raise ValueError(
                "expected one threshold of each name and group, found two; keep one of them"
            )
        return self

    def confidence(self, selection_score: float) -> float:
        """The probability of being right, in [0, 1): a threshold of 1 releases nothing. NaN stays NaN."""
        return self.calibrator.confidence(selection_score)

    def threshold_for(self, group: str | None = None, name: str = "accept") -> Threshold | None:
        """The threshold of a group, or the one for every group that has none of its own; None where there is none."""
        cuts = {
            threshold.group: threshold for threshold in self.thresholds if threshold.name == name
        }
        return cuts.get(group) or cuts.get(None)

    def released(
        self, selection_scores: Numbers, groups: Sequence[str | None] | None = None
    ) -> Labels:
        """Which answers the guard would release, `(n,)`: the comparison it makes itself.

        Args:
            selection_scores: `(n,)`, in nats.
            groups: of each answer; None where they have none.
        """
        cuts = {group: self.threshold_for(group) for group in {None, *(groups or ())}}
        least = [
            1.0 if (cut := cuts[group]) is None else cut.confidence for group in groups or (None,)
        ]
        found: Labels = self.calibrator.confidences(selection_scores) >= np.array(least)
        return found

    @property
    def threshold(self) -> float:
        """The least confidence that is released where no group is given; 1 releases nothing."""
        accept = self.threshold_for()
        return accept.confidence if accept else 1.0

    @property
    def guarantee(self) -> str | None:
        """What that threshold promises of future answers, in one sentence; None: nothing."""
        accept = self.threshold_for()
        return accept.guarantee.sentence if accept and accept.guarantee else None

    @property
    def target_accuracy(self) -> float | None:
        """The accuracy that the released calibration answers were to reach and did; None: none did, or none was set."""
        accept = self.threshold_for()
        return (
            accept.target if accept and accept.releases and accept.objective == "accuracy" else None
        )


def fit_calibration(
    scores: ArrayLike, correct: ArrayLike, *, target_accuracy: float, date: str
) -> Calibration:
    """Fit the confidence on labelled answers, and take the lowest threshold whose released answers reach the target.

    The target is met on these very answers: it is an estimate, not a guarantee about others.

    Args:
        scores: selection scores, `(n,)`.
        correct: whether each answer is right, `(n,)`.
        target_accuracy: the accuracy wanted among released answers, in (0, 1].
        date: written into the result.
    """
    score, right = np.asarray(scores, dtype=float), np.asarray(correct, dtype=bool)
    calibrator = fit_calibrator(score, right, method="platt").calibrator
    threshold = _lowest_threshold(score, calibrator.confidences(score), right, target_accuracy)
    return Calibration(calibrator=calibrator, thresholds=(threshold,), n=len(right), date=date)


def _lowest_threshold(
    score: Numbers, confidence: Numbers, right: Labels, target: float
) -> Threshold:
    order = np.argsort(-score, kind="stable")
    ranked, released = confidence[order], np.arange(1, len(right) + 1)
    n_right = np.cumsum(right[order])
    # A threshold lies between two different confidences: ties are released together.
    is_cut = np.append(ranked[:-1] > ranked[1:], True)[: len(right)]
    good = np.flatnonzero(is_cut & (n_right / released >= target) & (released >= LEAST_RELEASED))
    if not len(good):
        return Threshold(confidence=1.0, objective="accuracy", target=target, coverage=0.0)
    cut = good[-1]
    return Threshold(
        confidence=float(ranked[cut]),
        selection_score=float(score[order[cut]]),
        objective="accuracy",
        target=target,
        coverage=float(released[cut] / len(right)),
        risk=float((released[cut] - n_right[cut]) / released[cut]),
    )


def _percent(share: float) -> str:
    return f"{100 * share:.10g} %"
