"""Evidence that a threshold's promise no longer holds, which may be looked at after every answer.

Both kinds are e-processes: numbers that start at 1, may be multiplied up by bets against the promise, and whose
expectation stays at most 1 at every moment while the promise holds. By Ville's inequality such a number ever
reaches 1/δ with probability at most δ, however often it is looked at and whenever one stops.

Each bets with several strengths, and begins to bet anew at every observation (with the weight 1/(t(t+1)) of all
it owns at the t-th), so that a change after a long good time is found without the good time counting against it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from aspire_guard.errors import InputError
from aspire_guard.selection.arrays import Numbers
from aspire_guard.selection.metrics import Interval

Share = Annotated[float, Field(gt=0, lt=1)]
Capital = tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...]

# Log odds ratios: a bet of strength λ pays best where the odds of a wrong answer are e^λ times the promised ones.
_ODDS_RATIOS = np.geomspace(0.01, 6.0, 40)
# A bet of strength θ multiplies the density of a score at rank u by exp(θ·shape(u)), up to a constant.
_TILTS = np.array([-4.0, -2.0, -1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 2.0, 4.0])
_BINS = 20
_AT_ONCE = 4096
# Any bound keeps the expectation from growing, and this one keeps the numbers finite.
_MOST_CAPITAL = 1e100
_TIES_SEED = 0


class _Evidence(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int = Field(default=0, ge=0)
    capital: Capital
    peak: float = Field(default=1.0, ge=1, allow_inf_nan=False)

    @property
    def e_value(self) -> float:
        """The evidence against the promise now: what the bets have made, and what has not been bet yet; 1 at first."""
        return _e_value(np.array(self.capital), self.n)


class ErrorEvidence(_Evidence):
    """Evidence from reviewers' labels that more of the released answers are wrong than was promised.

    A label x (1: wrong) multiplies the capital of a bet by 1 + b(x − r), with r the promised risk and
    b = (e^λ − 1) / (1 − r + r·e^λ) > 0: in expectation at most by 1 while the chance of a wrong answer, given all
    that came before, is at most r (betting: Waudby-Smith and Ramdas, JRSS B 2024).

    Attributes:
        target_risk: r, the promised share of wrong answers among the released ones, in (0, 1).
        n: labels so far.
        wrong: how many of them said "wrong".
        capital: of each bet.
        peak: the highest evidence so far.
    """

    target_risk: Share
    wrong: int = Field(default=0, ge=0)
    capital: Capital = (0.0,) * len(_ODDS_RATIOS)

    @model_validator(mode="after")
    def _possible(self) -> ErrorEvidence:
        if self.wrong > self.n or len(self.capital) != len(_ODDS_RATIOS):
            raise ValueError(f"{self.wrong} wrong of {self.n} labels, {len(self.capital)} bets")
        return self

    def after(self, correct: ArrayLike) -> ErrorEvidence:
        """The evidence after more labels of released answers, `(k,)` booleans, in the order they came."""
        wrong = ~_labels(correct)
        odds = np.exp(_ODDS_RATIOS)
        if_right = 1 / (1 - self.target_risk + self.target_risk * odds)
        factors = (np.where(chunk[:, None], odds * if_right, if_right) for chunk in _chunks(wrong))
        capital, peak = _bet(np.array(self.capital), self.peak, self.n, factors)
        return self.model_copy(
            update={
                "n": self.n + len(wrong),
                "wrong": self.wrong + int(wrong.sum()),
                "capital": tuple(capital.tolist()),
                "peak": peak,
            }
        )

    def interval(self, delta: float) -> Interval | None:
        """The share of wrong labels, between bounds on the risk averaged over all labels so far.

        With probability at least 1 − δ the bounds hold after every label at once, also while the risk changes: for
        each λ, exp(λ·wrong − Σ log(1 − p_i + p_i·e^λ)) is a martingale, and the logarithm is concave in the risk p_i
        of the i-th answer, so that the mean risk in place of all p_i makes it no larger.

        Returns:
            value, low and high in [0, 1]; None before the first label.
        """
        if not self.n:
            return None
        low = _least_mean(self.n, self.wrong, delta / 2)
        high = 1 - _least_mean(self.n, self.n - self.wrong, delta / 2)
        return Interval(self.wrong / self.n, low, high)


class ShiftEvidence(_Evidence):
    """Evidence that new selection scores are not drawn as the calibration scores were; needs no labels.

    A conformal test martingale on ranks (Vovk et al., COPA 2021). Some of the calibration scores cut the line into
    bins; while old and new scores are exchangeable, a new one falls into bin j with probability
    (gaps_j + counts_j) / (all gaps + n), where the gaps are those between neighbouring calibration scores. That holds
    exactly and at every size of the calibration sample, since these chances already average over its draw. The bets
    are on scores that sink or rise, gather or scatter; what changes neither is not found.

    Attributes:
        edges: between neighbouring bins: a calibration score, and a number in [0, 1) that orders it among equal ones.
        gaps: of each bin; one gap more than there are calibration scores in all.
        counts: new scores in each bin.
        n: new scores so far.
        capital: of each bet.
        peak: the highest evidence so far.
    """

    edges: tuple[tuple[float, Annotated[float, Field(ge=0, lt=1)]], ...]
    gaps: tuple[Annotated[int, Field(ge=1)], ...]
    counts: tuple[Annotated[int, Field(ge=0)], ...]
    capital: Capital = (0.0,) * (2 * len(_TILTS))

    @model_validator(mode="after")
    def _possible(self) -> ShiftEvidence:
        bins = {len(self.edges) + 1, len(self.gaps), len(self.counts)}
        ordered = all(low < high for low, high in pairwise(self.edges))
        if (
            len(bins) > 1
            or sum(self.counts) != self.n
            or not ordered
            or len(self.capital) != 2 * len(_TILTS)
        ):
            raise ValueError(f"{self.n} scores in {len(self.counts)} bins, {len(self.edges)} edges")
        return self

    @classmethod
    def against(cls, calibration_scores: ArrayLike) -> ShiftEvidence:
        """No evidence yet; the calibration scores, `(m,)`, are what new ones will be compared with.

        Raises:
            InputError: there are none, or one is not finite.
        """
        score = _scores(calibration_scores)
        if not score.size or np.isinf(score).any():
            found = "an infinite one" if score.size else "none"
            raise InputError(
                f"calibration scores: expected finite numbers, found {found}; give the calibration answers"
            )
        order = np.random.default_rng(_TIES_SEED).random(score.size)
        ranked = np.lexsort((order, score))
        bins = min(_BINS, score.size + 1)
        # The k-th lowest score closes the k-th gap.
        ranks = [round(j * (score.size + 1) / bins) for j in range(bins + 1)]
        cuts = [ranked[rank - 1] for rank in ranks[1:-1]]
        return cls(
            edges=tuple((float(score[i]), float(order[i])) for i in cuts),
            gaps=tuple(high - low for low, high in pairwise(ranks)),
            counts=(0,) * bins,
        )

    def after(self, scores: ArrayLike) -> ShiftEvidence:
        """The evidence after more selection scores, `(k,)`, released or not, in the order they came.

        Raises:
            InputError: a score is NaN.
        """
        bins = self._bins(_scores(scores))
        capital, peak = _bet(np.array(self.capital), self.peak, self.n, self._factors(bins))
        counts = np.array(self.counts) + np.bincount(bins, minlength=len(self.counts))
        return self.model_copy(
            update={
                "n": self.n + len(bins),
                "counts": tuple(counts.tolist()),
                "capital": tuple(capital.tolist()),
                "peak": peak,
            }
        )

    @property
    def mean_rank(self) -> float | None:
        """The mean rank of the new scores among the calibration scores, in (0, 1): about ½ without a shift."""
        return float(np.array(self.counts) @ self._positions / self.n) if self.n else None

    @cached_property
    def _positions(self) -> Numbers:
        """The middle of each bin, as a rank in (0, 1)."""
        gaps = np.array(self.gaps)
        positions: Numbers = (np.cumsum(gaps) - gaps / 2) / gaps.sum()
        return positions

    def _bins(self, score: Numbers) -> NDArray[np.intp]:
        # As many draws as there were scores before: the same numbers however the scores are cut into batches.
        order = np.random.Generator(np.random.PCG64(_TIES_SEED + 1).advance(self.n)).random(
            score.size
        )
        edge, edge_order = np.array(self.edges).reshape(-1, 2).T
        bins = np.searchsorted(edge, score, side="left")
        tied = np.flatnonzero(np.isin(score, edge))
        for chunk in _chunks(tied):
            same = score[chunk, None] == edge
            bins[chunk] += (same & (order[chunk, None] > edge_order)).sum(axis=1)
        return bins

    def _factors(self, bins: NDArray[np.intp]) -> Iterator[Numbers]:
        """What each score does to each bet, `(k, bets)`: its density against the mean density under exchangeability."""
        rank = self._positions
        shapes = np.stack([2 * rank - 1, 6 * rank**2 - 6 * rank + 1])
        density = (
            np.exp(np.multiply.outer(shapes, _TILTS)).transpose(1, 0, 2).reshape(len(rank), -1)
        )
        seen, total = (
            (np.array(self.gaps) + np.array(self.counts)) @ density,
            sum(self.gaps) + self.n,
        )
        for chunk in _chunks(bins):
            gains = density[chunk]
            sums = np.cumsum(np.vstack([seen, gains]), axis=0)
            yield gains * (total + np.arange(len(chunk)))[:, None] / sums[:-1]
            seen, total = sums[-1], total + len(chunk)


def _bet(
    capital: Numbers, peak: float, n: int, factors: Iterator[Numbers]
) -> tuple[Numbers, float]:
    """The capital of each bet after more observations, and the highest evidence on the way."""
    for chunk in factors:
        for factor in chunk:
            n += 1
            capital = np.minimum((capital + 1 / (n * (n + 1))) * factor, _MOST_CAPITAL)
            peak = max(peak, _e_value(capital, n))
    return capital, peak


def _e_value(capital: Numbers, n: int) -> float:
    return float(capital.sum()) / len(capital) + 1 / (n + 1)


def _least_mean(n: int, ones: int, delta: float) -> float:
    """The least mean of n chances that `ones` ones do not contradict at level δ, time-uniformly."""
    from scipy.optimize import brentq

    def excess(mean: float) -> float:
        powers = _ODDS_RATIOS * ones - n * np.log1p(mean * np.expm1(_ODDS_RATIOS))
        # By hand: SciPy's logsumexp takes ten times as long on so few numbers.
        highest = powers.max()
        return float(highest + np.log(np.exp(powers - highest).mean())) + math.log(delta)

    return float(brentq(excess, 0.0, ones / n)) if excess(0.0) > 0 else 0.0


def _labels(correct: ArrayLike) -> NDArray[np.bool_]:
    right = np.asarray(correct)
    if right.ndim != 1 or (right.size and right.dtype != np.bool_):
        found = f"{right.dtype} of shape {right.shape}"
        raise InputError(
            f"labels: expected a list of booleans, found {found}; pass True for each right answer"
        )
    return right.astype(np.bool_)


def _scores(scores: ArrayLike) -> Numbers:
    try:
        score = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"scores: expected numbers, found: {error}; pass selection scores"
        ) from error
    if score.ndim != 1 or np.isnan(score).any():
        found = f"shape {score.shape}" if score.ndim != 1 else f"{int(np.isnan(score).sum())} NaN"
        raise InputError(
            f"scores: expected a list of numbers, found {found}; leave out answers without a score"
        )
    return score


def _chunks(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    return (values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE))
