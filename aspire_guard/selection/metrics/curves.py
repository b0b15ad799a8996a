"""Risk against coverage, for every possible threshold on a score."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aspire_guard.errors import InputError
from aspire_guard.selection.arrays import Numbers
from aspire_guard.selection.metrics.answers import as_pair


class RiskCoverageCurve(NamedTuple):
    """Every threshold that releases something, from the highest score down. Ties are released together.

    Attributes:
        scores: the lowest score that each threshold releases, `(k,)`, falling.
        released: the number of answers that each threshold releases, `(k,)`, rising to n.
        wrong: the number of wrong answers among them, `(k,)`.
    """

    scores: Numbers
    released: NDArray[np.int64]
    wrong: NDArray[np.int64]

    @property
    def coverage(self) -> Numbers:
        """The share of the answers that each threshold releases, `(k,)`, in (0, 1]."""
        coverage: Numbers = self.released / self.released[-1]
        return coverage

    @property
    def risk(self) -> Numbers:
        """The selective risk of each threshold, `(k,)`: the share of wrong answers among the released ones."""
        risk: Numbers = self.wrong / self.released
        return risk


def risk_coverage_curve(scores: ArrayLike, correct: ArrayLike) -> RiskCoverageCurve:
    """Return coverage and selective risk of every threshold between two different scores.

    Raises:
        InputError: empty, unequal lengths or NaN.
    """
    score, right = as_pair(scores, correct)
    order = np.argsort(-score)
    ranked = score[order]
    last = np.flatnonzero(np.append(ranked[:-1] != ranked[1:], True))
    wrong = np.cumsum(~right[order], dtype=np.int64)
    return RiskCoverageCurve(ranked[last], last + 1, wrong[last])


def risk_at_coverage(scores: ArrayLike, correct: ArrayLike, coverage: float) -> float:
    """Return the selective risk of the highest threshold that releases at least this share of the answers.

    Raises:
        InputError: bad answers, or a coverage outside (0, 1].
    """
    if not 0 < coverage <= 1:
        raise InputError(
            f"coverage: expected a share above 0 and up to 1, found {coverage:g}; pass e.g. 0.8."
        )
    curve = risk_coverage_curve(scores, correct)
    return float(curve.risk[np.argmax(curve.coverage >= coverage)])


def coverage_at_risk(scores: ArrayLike, correct: ArrayLike, risk: float) -> float:
    """Return the largest coverage of a threshold whose selective risk is at most this, or 0 if there is none.

    Raises:
        InputError: bad answers, or a risk outside [0, 1].
    """
    if not 0 <= risk <= 1:
        raise InputError(f"risk: expected a share from 0 to 1, found {risk:g}; pass e.g. 0.05.")
    curve = risk_coverage_curve(scores, correct)
    return float(curve.coverage[curve.risk <= risk].max(initial=0.0))
