"""Evidence that a threshold's promise no longer holds, which may be looked at after every answer.

Both kinds of evidence are e-processes: numbers that start at 1, may be multiplied up by bets against the promise, and
have an expectation of at most 1 at every moment while the promise holds. By Ville's inequality, the probability that
such a number ever reaches 1/δ is at most δ, however often it is looked at and whenever one stops.

Each e-process bets with several strengths, and starts a new bet at every observation (with the weight 1/(t(t+1)) of
all its capital at the t-th observation). So a change after a long good time is found, and the good time does not count
against it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from aspire_guard.errors import InputError
from aspire_guard.selection.arrays import Labels, Numbers
from aspire_guard.selection.metrics import Interval

Share = Annotated[float, Field(gt=0, lt=1)]
Capital = tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...]
Edge = tuple[float, Annotated[float, Field(ge=0, lt=1)]]

# Log odds ratios: a bet of strength λ pays best if the odds of a wrong answer are e^λ times the promised odds.
_ODDS_RATIOS = np.geomspace(0.01, 6.0, 40)
# A bet of strength θ multiplies the density of a score at rank u by exp(θ·shape(u)), up to a constant.
_TILTS = np.array([-4.0, -2.0, -1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 2.0, 4.0])
_SHAPES = 2
_BINS = 20
_CHUNK_SIZE = 4096
# Any bound keeps the expectation from growing, and this one keeps the numbers finite.
_MAX_CAPITAL = 1e100
_TIES_SEED = 0


class _Evidence(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int = Field(default=0, ge=0)
    capital: Capital
    peak: float = Field(default=1.0, ge=1, allow_inf_nan=False)

    @property
    def e_value(self) -> float:
        """The evidence against the promise now, 1 at first: the capital of the bets, and the capital not bet yet."""
        return _compute_e_value(np.array(self.capital), self.n)


class ErrorEvidence(_Evidence):
    """Evidence from reviewers' labels that more of the released answers are wrong than was promised.

    A label x (1: wrong) multiplies the capital of a bet by 1 + b(x − r), with r the promised risk and
    b = (e^λ − 1) / (1 − r + r·e^λ) > 0: in expectation at most by 1 while the chance of a wrong answer, given all
    that came before, is at most r (betting: Waudby-Smith and Ramdas, JRSS B 2024).

    Attributes:
        target_risk: r, the promised share of wrong answers among the released ones, in (0, 1).
        n: the number of labels so far.
        wrong: the number of labels that said "wrong".
        capital: the capital of each bet.
        peak: the highest evidence so far.
    """

    target_risk: Share
    wrong: int = Field(default=0, ge=0)
    capital: Capital = (0.0,) * len(_ODDS_RATIOS)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.wrong > self.n or len(self.capital) != len(_ODDS_RATIOS):
            raise ValueError(f"{self.wrong} wrong of {self.n} labels, {len(self.capital)} bets")
        return self

    def add_labels(self, correct: ArrayLike) -> Self:
        """Return the evidence after more labels of released answers, `(k,)` booleans, in the order they came.

        Raises:
            InputError: the labels are not booleans.
        """
        wrong = ~_check_labels(correct)
        capital, peak = _bet(
            np.array(self.capital), self.peak, self.n, self._compute_factors(wrong)
        )
        return self.model_copy(
            update={
                "n": self.n + len(wrong),
                "wrong": self.wrong + int(wrong.sum()),
                "capital": tuple(capital.tolist()),
                "peak": peak,
            }
        )

    def interval(self, delta: float) -> Interval | None:
        """Return the share of wrong labels, between bounds on the risk averaged over all labels so far.

        With probability at least 1 − δ the bounds hold after every label at once, also while the risk changes: for
        each λ, exp(λ·wrong − Σ log(1 − p_i + p_i·e^λ)) is a martingale, and the logarithm is concave in the risk p_i
        of the i-th answer, so that the mean risk in place of all p_i makes it no larger.

        Returns:
            Value, low and high in [0, 1], or None before the first label.
        """
        if not self.n:
            return None
        low = _find_least_mean(self.n, self.wrong, delta / 2)
        high = 1 - _find_least_mean(self.n, self.n - self.wrong, delta / 2)
        return Interval(self.wrong / self.n, low, high)

    def _compute_factors(self, wrong: Labels) -> Iterator[Numbers]:
        """Yield the factors by which labels multiply the capital of each bet, chunks of `(k, bets)`."""
        odds = np.exp(_ODDS_RATIOS)
        if_right = 1 / (1 - self.target_risk + self.target_risk * odds)
        if_wrong = odds * if_right
        for chunk in _split_into_chunks(wrong):
            yield np.where(chunk[:, None], if_wrong, if_right)


class ShiftEvidence(_Evidence):
    """Evidence that new selection scores are not drawn as the calibration scores were. It needs no labels.

    A conformal test martingale on ranks (Vovk et al., COPA 2021). Some of the calibration scores cut the line into
    bins. While old and new scores are exchangeable, a new score falls into bin j with probability
    (gaps_j + counts_j) / (all gaps + n), where the gaps are those between neighbouring calibration scores. That holds
    exactly and at every size of the calibration sample, since these chances already average over its draw. The bets
    are on scores that sink or rise, gather or scatter. A change that does neither is not found.

    Attributes:
        edges: between neighbouring bins: a calibration score, and a number in [0, 1) that orders it among equal ones.
        gaps: the number of gaps in each bin. Together there is one more gap than there are calibration scores.
        counts: the number of new scores in each bin.
        n: the number of new scores so far.
        capital: the capital of each bet.
        peak: the highest evidence so far.
    """

    edges: tuple[Edge, ...]
    gaps: tuple[Annotated[int, Field(ge=1)], ...]
    counts: tuple[Annotated[int, Field(ge=0)], ...]
    capital: Capital = (0.0,) * (_SHAPES * len(_TILTS))

    @model_validator(mode="after")
    def _check(self) -> Self:
        has_bins = len(self.edges) + 1 == len(self.gaps) == len(self.counts)
        is_ordered = all(low < high for low, high in pairwise(self.edges))
        has_bets = len(self.capital) == _SHAPES * len(_TILTS)
        if not (has_bins and is_ordered and has_bets) or sum(self.counts) != self.n:
            raise ValueError(f"{self.n} scores in {len(self.counts)} bins, {len(self.edges)} edges")
        return self

    @classmethod
    def from_calibration(cls, calibration_scores: ArrayLike) -> Self:
        """Make the evidence before any new score. New scores will be compared with the calibration scores, `(m,)`.

        Raises:
            InputError: there are no scores, or a score is not finite.
        """
        score = _check_scores(calibration_scores)
        if not score.size or np.isinf(score).any():
            found = "an infinite one" if score.size else "none"
            raise InputError(
                f"calibration scores: expected finite numbers, found {found}; give the calibration answers"
            )
        tie_order = np.random.default_rng(_TIES_SEED).random(score.size)
        ranked = np.lexsort((tie_order, score))
        n_gaps = score.size + 1
        n_bins = min(_BINS, n_gaps)
        # The k-th lowest score closes the k-th gap.
        last_gaps = [round(place * n_gaps / n_bins) for place in range(n_bins + 1)]
        edges = []
        for last_gap in last_gaps[1:-1]:
            answer = ranked[last_gap - 1]
            edges.append((float(score[answer]), float(tie_order[answer])))
        return cls(
            edges=tuple(edges),
            gaps=tuple(high - low for low, high in pairwise(last_gaps)),
            counts=(0,) * n_bins,
        )

    def add_scores(self, scores: ArrayLike) -> Self:
        """Return the evidence after more selection scores, `(k,)`, released or not, in the order they came.

        Raises:
            InputError: a score is NaN.
        """
        bins = self._find_bins(_check_scores(scores))
        capital, peak = _bet(np.array(self.capital), self.peak, self.n, self._compute_factors(bins))
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
        if not self.n:
            return None
        return float(np.array(self.counts) @ self._positions / self.n)

    @cached_property
    def _positions(self) -> Numbers:
        """The middle of each bin, as a rank in (0, 1)."""
        gaps = np.array(self.gaps)
        positions: Numbers = (np.cumsum(gaps) - gaps / 2) / gaps.sum()
        return positions

    def _find_bins(self, score: Numbers) -> NDArray[np.intp]:
        # The generator skips one draw per earlier score, so that the numbers don't depend on how the scores are split
        # into batches.
        generator = np.random.PCG64(_TIES_SEED + 1).advance(self.n)
        tie_order = np.random.Generator(generator).random(score.size)
        edge, edge_order = np.array(self.edges).reshape(-1, 2).T
        bins = np.searchsorted(edge, score, side="left")
        tied = np.flatnonzero(np.isin(score, edge))
        for rows in _split_into_chunks(tied):
            # A score that equals edges lies above those that chance puts below it, `(k, edges)`.
            is_tied = score[rows, None] == edge
            is_above = tie_order[rows, None] > edge_order
            bins[rows] += (is_tied & is_above).sum(axis=1)
        return bins

    def _compute_factors(self, bins: NDArray[np.intp]) -> Iterator[Numbers]:
        """Yield the factors by which scores multiply the capital of each bet, chunks of `(k, bets)`.

        A factor is the density that the bet gives to the score's bin, over its mean under exchangeability.
        """
        density = self._compute_densities()
        # Summed over the gaps and all scores so far, whose bins a new score falls into with equal chances: `(bets,)`.
        density_sum = (np.array(self.gaps) + np.array(self.counts)) @ density
        total = sum(self.gaps) + self.n
        for chunk in _split_into_chunks(bins):
            gains = density[chunk]
            # Row i is the sum before the i-th score of the chunk, and the last row the sum after all of them.
            sums = np.cumsum(np.vstack([density_sum, gains]), axis=0)
            totals = total + np.arange(len(chunk))
            yield gains * totals[:, None] / sums[:-1]
            density_sum = sums[-1]
            total += len(chunk)

    def _compute_densities(self) -> Numbers:
        """Return the density of each bet in each bin, up to a constant, `(bins, bets)`."""
        rank = self._positions
        rise, scatter = 2 * rank - 1, 6 * rank**2 - 6 * rank + 1
        shapes = np.stack([rise, scatter])  # (shapes, bins)
        tilted = np.exp(np.multiply.outer(shapes, _TILTS))  # (shapes, bins, tilts)
        densities: Numbers = tilted.transpose(1, 0, 2).reshape(len(rank), -1)
        return densities


def _bet(
    capital: Numbers, peak: float, n: int, factors: Iterator[Numbers]
) -> tuple[Numbers, float]:
    """Return the capital of each bet after more observations, and the highest evidence on the way."""
    for chunk in factors:
        for factor in chunk:
            n += 1
            capital = np.minimum((capital + 1 / (n * (n + 1))) * factor, _MAX_CAPITAL)
            peak = max(peak, _compute_e_value(capital, n))
    return capital, peak


def _compute_e_value(capital: Numbers, n: int) -> float:
    return float(capital.sum()) / len(capital) + 1 / (n + 1)


def _find_least_mean(n: int, hits: int, delta: float) -> float:
    """Return the least mean of n chances that this number of hits does not contradict at level δ, time-uniformly."""
    from scipy.optimize import brentq

    def excess(mean: float) -> float:
        powers = _ODDS_RATIOS * hits - n * np.log1p(mean * np.expm1(_ODDS_RATIOS))
        # By hand: SciPy's logsumexp takes ten times as long on so few numbers.
        highest = powers.max()
        return float(highest + np.log(np.exp(powers - highest).mean())) + math.log(delta)

    return float(brentq(excess, 0.0, hits / n)) if excess(0.0) > 0 else 0.0


def _check_labels(correct: ArrayLike) -> Labels:
    right = np.asarray(correct)
    if right.ndim != 1 or (right.size and right.dtype != np.bool_):
        found = f"{right.dtype} of shape {right.shape}"
        raise InputError(
            f"labels: expected a list of booleans, found {found}; pass True for each right answer"
        )
    return right.astype(np.bool_)


def _check_scores(scores: ArrayLike) -> Numbers:
    try:
        score = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"scores: expected numbers, found: {error}; pass selection scores"
        ) from error
    if score.ndim != 1 or np.isnan(score).any():
        found = f"{int(np.isnan(score).sum())} NaN" if score.ndim == 1 else f"shape {score.shape}"
        raise InputError(
            f"scores: expected a list of numbers, found {found}; leave out answers without a score"
        )
    return score


def _split_into_chunks(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield chunks of the values that are small enough to work on at once."""
    return (values[start : start + _CHUNK_SIZE] for start in range(0, len(values), _CHUNK_SIZE))
