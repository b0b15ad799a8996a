"""The base of all calibrators: an increasing function from selection scores to confidences below 1."""

from __future__ import annotations

import math
from abc import abstractmethod

from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict

from aspire_guard.selection.arrays import Numbers

HIGHEST_CONFIDENCE = math.nextafter(1.0, 0.0)


class Calibrator(BaseModel):
    """The base of the calibrators.

    A calibrator is strictly increasing in the selection score, so a threshold on the score is also a threshold on the
    confidence (`PlattCalibrator` with slope 0 is the exception: it ties everything). That is true of real numbers. As
    floats, two scores that differ by next to nothing, or for which a logistic is flat, can share a confidence. A
    higher score never gets a lower confidence. A threshold has to lie between two different *confidences*.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @abstractmethod
    def confidences(self, scores: ArrayLike) -> Numbers:
        """Return the probabilities of being right, in [0, 1), of selection scores `(n,)`. NaN stays NaN."""

    def confidence(self, selection_score: float) -> float:
        """Return the probability of being right, in [0, 1), so that a threshold of 1 releases nothing. NaN stays NaN.

        The number is the same, to the last bit, as in `confidences`.
        """
        return float(self.confidences([selection_score])[0])
