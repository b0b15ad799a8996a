"""Calibrators: from a selection score to the probability that the answer is right, order kept.

Every calibrator is a frozen model of JSON numbers that gives the same confidences after a reload.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from aspire_guard.selection.calibrators.base import HIGHEST_CONFIDENCE, ScoreCalibrator
from aspire_guard.selection.calibrators.fit import (
    METHODS,
    FittedCalibrator,
    Losses,
    Method,
    fit_calibrator,
)
from aspire_guard.selection.calibrators.logistic import PlattCalibrator, TemperatureCalibrator
from aspire_guard.selection.calibrators.monotone import IsotonicCalibrator, VennAbersCalibrator

__all__ = [
    "HIGHEST_CONFIDENCE",
    "METHODS",
    "Calibrator",
    "FittedCalibrator",
    "IsotonicCalibrator",
    "Losses",
    "Method",
    "PlattCalibrator",
    "ScoreCalibrator",
    "TemperatureCalibrator",
    "VennAbersCalibrator",
    "fit_calibrator",
]

Calibrator = Annotated[
    PlattCalibrator | IsotonicCalibrator | TemperatureCalibrator | VennAbersCalibrator,
    Field(discriminator="method"),
]
