"""What every calibrator is: an increasing function from selection scores to confidences below 1."""

from __future__ import annotations

import math
from abc import abstractmethod

from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict

from aspire_guard.selection.arrays import Numbers

HIGHEST_CONFIDENCE = math.nextafter(1.0, 0.0)


class ScoreCalibrator(BaseModel):
    """Base of the calibrators.

    A calibrator is strictly increasing in the selection score, so a cut on the one is a cut on the other
    (`PlattCalibrator` with slope 0 is the exception: it ties everything). That holds of real numbers: two scores
    that differ by next to nothing, or lie where a logistic is flat, can share a confidence as floats. Never does a
    higher score get a lower confidence. Whoever cuts has to cut between two different *confidences*.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @abstractmethod
    def confidences(self, scores: ArrayLike) -> Numbers:
        """The probabilities of being right, in [0, 1), of selection scores `(n,)`. NaN stays NaN."""

    def confidence(self, selection_score: float) -> float:
        """The probability of being right, in [0, 1): a threshold of 1 releases nothing. NaN stays NaN.

        The same number, to the last bit, as in `confidences`.
        """
        return float(self.confidences([selection_score])[0])
