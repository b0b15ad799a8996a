"""Which cuts on a selection score keep the share of wrong answers below a target, with a stated probability.

Answers are ranked from the highest score down. R(c) is the selective risk of a cut c: the probability that an answer
above it is wrong. A cut right after rank m, at the score of the (m + 1)-th answer, is tested with the m answers above:

    Given the (m + 1)-th score, these m answers are independent draws from the law of all answers above it. So the
    wrong ones among them are Binomial(m, R), and P(Binomial(m, target) ≤ wrong) is an exact p-value of "R > target".

**Many cuts, one δ** (Learn then Test, Angelopoulos et al. 2021). A run starts at a rank that depends on n, the target
and δ alone and tests every further rank at its share of δ, until a test fails. All cuts it passed are certified
together, whatever the shape of the scores: R may rise and fall as it likes. An error needs the first bad cut that a run
meets to be passed, and this has probability δ at most. Since the cuts themselves depend on the scores, that takes an
argument. Break ties at random, and let R(x) run over the places x of that order, where it has no jumps. The places
where R is above the target form stretches, and at both ends of each R equals the target (or the stretch begins at the
top). So within each of them, and within each stretch between two of them, an average answer is wrong with exactly the
probability `target`. Which stretch holds the first bad place that is met depends only on how many answers fell into
each; given these numbers, the m answers above it are wrong at the target or more often, Binomial, and the test passes
with probability δ at most. Several runs share δ (Bonferroni).

**Ties.** The guard can't part answers with equal scores, so a cut is offered only between two different scores. Inside
a block of ties the tests go on, in a random order, but only the cut after the whole block is used. It may be bad
although the places of the answers on either side of it are good: it lies in a bad stretch without answers, and the
argument holds as before. A run that misses such a stretch tells one thing more: the next answer below is not of the
block in which the stretch ends. Within that block R falls through the target, so its answers are better than the
target; without them errors are more frequent, and the test is safer still.

**Starts.** A run may start at its rank r, or at the last cut up to rank r, which a heavy block of ties does not blur.
If that cut is bad, it is the first that is met, and given it the answers above are independent draws. If it is good, it
lies in a good stretch, and all that is known beyond the numbers is that at most r answers lie above that stretch (with
the block in which the stretch begins). R is at most the target there and the target at the stretch's end, so answers
within the stretch are wrong more often than those above it, and few above mean more errors: the test is safer again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from itertools import takewhile
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from aspire_guard.errors import InputError
from aspire_guard.selection.arrays import Counts, Labels, Numbers
from aspire_guard.selection.metrics.answers import as_pair

METHOD = "fixed sequences of exact binomial tests"

# A single start has to be early, to find the few answers that a weak score is sure of, and late, not to trip over an
# early mistake. So there are several, each with its share of δ; the first is the likeliest to matter. Chosen for
# coverage in simulations, of scores from sharp to weak and of heavy ties; any choice that sees no labels is valid.
_FIRST_SHARE = 0.7
_LATER_STARTS = tuple(int(8 * 1.2**step) for step in range(100))
_LATEST_START = 0.75
_PLENTY = 40
_BLOCK = 4096


class RankedAnswers(NamedTuple):
    """Labelled answers from the highest score down, ties in random order.

    Attributes:
        score: selection scores, `(n,)`, falling.
        wrong: how many of the best m answers are wrong, `(n,)`, for m from 1 to n.
        is_cut: whether a threshold can part the best m answers from the rest, `(n,)`: not inside a block of ties.
    """

    score: Numbers
    wrong: Counts
    is_cut: Labels


class Start(NamedTuple):
    """Where a run starts: at a rank, or at the last cut up to there; and its share of δ."""

    rank: int
    share: float
    at_cut: bool


class Run(NamedTuple):
    """Ranks that one sequence of tests passed, both inclusive; every cut right after one of them is certified."""

    first: int
    last: int


def rank_answers(scores: ArrayLike, correct: ArrayLike) -> RankedAnswers:
    """Rank answers by score; the result does not depend on the order in which they are given.

    Raises:
        InputError: empty, unequal lengths, or a score that is not finite.
    """
    score, right = as_pair(scores, correct)
    if not np.isfinite(score).all():
        found = f"{score[~np.isfinite(score)][0]}"
        raise InputError(
            f"scores: expected finite numbers, found {found}; leave these answers out or score them again"
        )
    order = np.argsort(-score)
    ranked, wrong = score[order], ~right[order]
    is_cut = np.append(ranked[:-1] > ranked[1:], True)
    if not is_cut.all():
        # Labels order the ties first, so that the order of the input is forgotten, and then chance does. A fixed seed
        # would give every draw of the answers the same luck.
        wrong = wrong[np.lexsort((wrong, -ranked))]
        seed = int.from_bytes(sha256(ranked.tobytes() + wrong.tobytes()).digest())
        wrong = wrong[np.lexsort((np.random.default_rng(seed).random(len(wrong)), -ranked))]
    return RankedAnswers(ranked, np.cumsum(wrong), is_cut)


def certified_runs(ranked: RankedAnswers, target_risk: float, delta: float) -> list[Run]:
    """The ranks after which a cut keeps the risk at or below the target.

    With probability 1 − δ over the draw of the answers, this holds of all cuts right after these ranks at once, so
    any of them may be chosen, after seeing the labels too.

    Args:
        ranked: the answers.
        target_risk: the largest risk, in (0, 1).
        delta: δ, in (0, 1).
    """
    n, blocks = len(ranked.score), dict[int, Numbers]()

    def p_values(block: int) -> Numbers:
        # Runs share them, and of a million ranks few are reached.
        if block not in blocks:
            ranks = np.arange(block * _BLOCK, min((block + 1) * _BLOCK, n)) + 1
            blocks[block] = binomial_p_value(ranked.wrong[ranks - 1], ranks, target_risk)
        return blocks[block]

    begun = [(_first(ranked, start), start.share) for start in starts(n, target_risk, delta)]
    runs = [_run(p_values, n, first, share) for first, share in begun if first]
    return [run for run in runs if run.last >= run.first]


def starts(n: int, target_risk: float, delta: float) -> list[Start]:
    """Where runs start, in rising order; empty where n answers can't be enough.

    At the first rank where so many wrong answers pass: 0 (1 where data is plenty), 8, 9, 11, and so on. Of the later
    ones each other starts at a cut, from halfway to where one more would pass: the cut may lie a little before.
    """
    first = 1 if n >= _PLENTY * fewest_released(0, target_risk, delta) else 0
    later = list(
        takewhile(
            lambda wrong: fewest_released(wrong, target_risk, delta) <= _LATEST_START * n,
            _LATER_STARTS,
        )
    )
    share = delta * (_FIRST_SHARE if later else 1.0)
    found = [Start(fewest_released(first, target_risk, share), share, at_cut=False)]
    for place, wrong in enumerate(later):
        share = delta * (1 - _FIRST_SHARE) / len(later)
        rank, at_cut = fewest_released(wrong, target_risk, share), place % 2 == 1
        if at_cut:
            rank = (rank + fewest_released(wrong + 1, target_risk, share)) // 2
        found.append(Start(rank, share, at_cut))
    return [start for start in found if start.rank <= n]


def any_certified(ranked: RankedAnswers, usable: Counts, target_risk: float, delta: float) -> bool:
    """Whether a run reaches a usable cut (ranks, rising, the last one n): cheaper than all of `certified_runs`."""
    for start in starts(len(ranked.score), target_risk, delta):
        first = _first(ranked, start)
        if not first:
            continue
        ranks = np.arange(first, usable[np.searchsorted(usable, first)] + 1)
        if (binomial_p_value(ranked.wrong[ranks - 1], ranks, target_risk) <= start.share).all():
            return True
    return False


def bounded_cut(
    ranked: RankedAnswers, usable: Counts, least: int, delta: float
) -> tuple[int, float]:
    """The first usable cut (ranks, rising, the last one n) after `least` answers or more, and a bound on its risk.

    The bound is at most δ likely to fail: the cut is chosen among ranks that are fixed beforehand, each with its
    share of δ. Half belongs to `least` itself; the others, ever further apart, are for a block of ties at that rank.
    """
    n = len(ranked.score)
    ranks = np.unique(np.minimum(least - 1 + 2 ** np.arange(n.bit_length() + 1), n))
    cuts = np.append(0, np.flatnonzero(ranked.is_cut) + 1)
    for rank in ranks.tolist():
        place = int(cuts[np.searchsorted(cuts, rank, side="right") - 1])
        if place >= least and place == usable[np.searchsorted(usable, place)]:
            share = (
                delta
                if len(ranks) == 1
                else delta / 2
                if rank == least
                else delta / 2 / (len(ranks) - 1)
            )
            return place, float(risk_upper_bound(ranked.wrong[place - 1], place, share))
    raise AssertionError("the cut after all answers is always usable")


def binomial_p_value(wrong: ArrayLike, released: ArrayLike, target_risk: float) -> Numbers:
    """P(Binomial(released, target) ≤ wrong): the exact p-value of "the risk is above the target"."""
    from scipy.special import bdtr

    return np.asarray(
        bdtr(np.asarray(wrong, float), np.asarray(released, np.int64), target_risk), np.float64
    )


def risk_upper_bound(wrong: ArrayLike, released: ArrayLike, delta: float) -> Numbers:
    """The Clopper–Pearson bound: the risk is at most this with probability 1 − δ, at a cut chosen without the labels.

    Of the best of many cuts it is no bound; `certified_runs` is for that.
    """
    from scipy.special import betaincinv

    k, m = np.asarray(wrong, float), np.asarray(released, float)
    return np.where(k < m, betaincinv(k + 1, np.maximum(m - k, 1), 1 - delta), 1.0)


@lru_cache(maxsize=4096)
def fewest_released(wrong: int, target_risk: float, delta: float) -> int:
    """The least number of released answers at which so many wrong ones still pass the test."""
    low, high = wrong, wrong + 1
    while binomial_p_value(wrong, high, target_risk) > delta:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (low, middle)
            if binomial_p_value(wrong, middle, target_risk) <= delta
            else (middle, high)
        )
    return high


def _first(ranked: RankedAnswers, start: Start) -> int:
    """The first rank that a run tests; 0 where it is to start at a cut and there is none before."""
    if not start.at_cut:
        return start.rank
    return start.rank - int(np.argmax(np.append(ranked.is_cut[: start.rank][::-1], True)))


def _run(p_values: Callable[[int], Numbers], n: int, first: int, share: float) -> Run:
    """Test rank after rank, whose p-values come in blocks, until one fails."""
    for block in range((first - 1) // _BLOCK, (n - 1) // _BLOCK + 1):
        begin = max(first - 1 - block * _BLOCK, 0)
        failed = p_values(block)[begin:] > share
        if failed.any():
            return Run(first, block * _BLOCK + begin + int(np.argmax(failed)))
    return Run(first, n)
