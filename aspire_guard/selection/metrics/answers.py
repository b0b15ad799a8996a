"""Checks of scores and labels, the arguments of every metric."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from aspire_guard.errors import InputError
from aspire_guard.selection.arrays import Labels, Numbers


def as_pair(scores: ArrayLike, correct: ArrayLike) -> tuple[Numbers, Labels]:
    """Return both as arrays of equal length `(n,)`, n ≥ 1, without NaN.

    Raises:
        InputError: they are anything else.
    """
    right = as_correct(correct)
    try:
        score = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"scores: expected numbers, found: {error}; pass one score per answer."
        ) from error
    if score.shape != right.shape:
        found = f"shapes {score.shape} and {right.shape}"
        raise InputError(
            f"scores and correct: expected one of each per answer, found {found}; pair them up."
        )
    if np.isnan(score).any():
        found = f"{int(np.isnan(score).sum())} NaN"
        raise InputError(
            f"scores: expected numbers, found {found}; leave these answers out or score them again."
        )
    return score, right


def as_probabilities(confidence: ArrayLike, correct: ArrayLike) -> tuple[Numbers, Labels]:
    """Return both as arrays of equal length `(n,)`, n ≥ 1, the first within [0, 1].

    Raises:
        InputError: they are anything else.
    """
    probability, right = as_pair(confidence, correct)
    outside = probability[(probability < 0) | (probability > 1)]
    if outside.size:
        raise InputError(
            f"confidence: expected probabilities, found {outside[0]:g}; pass confidences, not selection scores."
        )
    return probability, right


def as_correct(correct: ArrayLike) -> Labels:
    """Return labels `(n,)`, n ≥ 1, as booleans.

    Raises:
        InputError: they are not booleans.
    """
    right = np.asarray(correct)
    if right.ndim != 1 or right.size == 0:
        found = f"shape {right.shape}"
        raise InputError(
            f"correct: expected a list of at least one boolean, found {found}; evaluate some answers."
        )
    if right.dtype != np.bool_ and not np.isin(right, (0, 1)).all():
        raise InputError(
            f"correct: expected booleans, found {right.dtype} other than 0 and 1; apply a threshold first."
        )
    return right.astype(np.bool_)
