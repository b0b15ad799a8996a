"""Calibrators: from a selection score to the probability that the answer is right, order kept.

Every calibrator is a frozen model of JSON numbers that gives the same confidences after a reload. `Calibrator` is the
base of all. `AnyCalibrator` is the union of the kinds that a file can hold, which `method` distinguishes.
"""

from __future__ import annotations

from aspire_guard.selection.calibrators.base import HIGHEST_CONFIDENCE, Calibrator
from aspire_guard.selection.calibrators.fit import (
    METHODS,
    AnyCalibrator,
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
    "AnyCalibrator",
    "Calibrator",
    "FittedCalibrator",
    "IsotonicCalibrator",
    "Losses",
    "Method",
    "PlattCalibrator",
    "TemperatureCalibrator",
    "VennAbersCalibrator",
    "fit_calibrator",
]
