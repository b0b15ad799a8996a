"""Fixed sequences of tests: which thresholds on a selection score keep the share of wrong answers below a target.

Answers are ranked from the highest score down. A candidate threshold lies right after a rank m, at the score of the
(m + 1)-th answer, and R is its selective risk: the probability that an answer above it is wrong. It is tested with the
m answers above:

    Given the (m + 1)-th score, these m answers are independent draws from the law of all answers above it. So the
    wrong ones among them are Binomial(m, R), and P(Binomial(m, target) ≤ wrong) is an exact p-value of "R > target".

**Many candidates, one δ** (Learn then Test, Angelopoulos et al. 2021). A run starts at a rank that depends on n, the
target and δ alone and tests every further rank at its share of δ, until a test fails. All candidates that it passed are
certified together, whatever the shape of the scores: R may rise and fall as it likes. For an error, the run has to pass
the first bad candidate that it meets, and the probability of that is δ at most. Since the candidates themselves depend
on the scores, this takes an argument. Break ties at random, and let R(x) run over the places x of that order, where it
has no jumps. The places where R is above the target form stretches, and at both ends of each R equals the target (or
the stretch begins at the top). So within each of them, and within each stretch between two of them, an average answer
is wrong with exactly the probability `target`. The stretch that holds the first bad place met depends only on how many
answers fell into each. Given these numbers, the m answers above that place are wrong at the target or more often,
Binomial, and the test passes with probability δ at most. Several runs share δ (Bonferroni).

**Ties.** The guard can't separate answers with equal scores, so a candidate lies only between different scores. Inside
a block of ties the tests go on, in a random order, but only the candidate after the whole block is used. It may be bad
although the places of the answers on either side of it are good: it lies in a bad stretch without answers, and the
argument holds as before. A run that misses such a stretch tells one thing more: the next answer below is not of the
block in which the stretch ends. Within that block R falls through the target, so its answers are better than the
target. Without them errors are more frequent, and the test is safer still.

**Starts.** A run may start at its rank r, or at the last candidate up to rank r, which a heavy block of ties does not
blur. If that candidate is bad, it is the first that is met, and given it the answers above are independent draws. If it
is good, it lies in a good stretch, and all that is known beyond the numbers is that at most r answers lie above that
stretch (with the block in which the stretch begins). R is at most the target there and equals the target at the
stretch's end, so answers within the stretch are wrong more often than those above it, and few above mean more errors:
the test is safer again.
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
# early mistake. So there are several, each with its share of δ. The first is the likeliest to matter. They were chosen
# for coverage in simulations, of scores from sharp to weak and of heavy ties. Any choice that sees no labels is valid.
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
        is_candidate: whether a threshold can separate the best m answers from the rest, `(n,)`. It can't inside a
            block of ties.
    """

    score: Numbers
    wrong: Counts
    is_candidate: Labels


class Start(NamedTuple):
    """The start of a run.

    Attributes:
        rank: the rank where it starts.
        share: its share of δ.
        at_candidate: whether it starts at the last candidate up to the rank instead.
    """

    rank: int
    share: float
    at_candidate: bool


class Run(NamedTuple):
    """Ranks that one sequence of tests passed, both ends inclusive. The candidate after each of them is certified."""

    first: int
    last: int


def rank_answers(scores: ArrayLike, correct: ArrayLike) -> RankedAnswers:
    """Rank answers by score. The result does not depend on the order in which they are given.

    Raises:
        InputError: empty, unequal lengths, or a score that is not finite.
    """
    score, right = as_pair(scores, correct)
    is_finite = np.isfinite(score)
    if not is_finite.all():
        raise InputError(
            f"scores: expected finite numbers, found {score[~is_finite][0]}; leave these answers out or score them "
            "again"
        )
    order = np.argsort(-score)
    ranked, wrong = score[order], ~right[order]
    is_candidate = np.append(ranked[:-1] > ranked[1:], True)
    if not is_candidate.all():
        wrong = _shuffle_ties(ranked, wrong)
    return RankedAnswers(ranked, np.cumsum(wrong), is_candidate)


def _shuffle_ties(ranked: Numbers, wrong: Labels) -> Labels:
    """Put answers of equal score into an order that depends on neither the file's order nor the labels."""
    # Labels order the ties first, so that the order of the input is forgotten, and then chance does. A fixed seed
    # would give every draw of the answers the same luck.
    sorted_wrong = wrong[np.lexsort((wrong, -ranked))]
    digest = sha256(ranked.tobytes() + sorted_wrong.tobytes()).digest()
    chance = np.random.default_rng(int.from_bytes(digest)).random(len(sorted_wrong))
    shuffled: Labels = sorted_wrong[np.lexsort((chance, -ranked))]
    return shuffled


def find_certified_runs(ranked: RankedAnswers, target_risk: float, delta: float) -> list[Run]:
    """Find the ranks after which a threshold keeps the risk at or below the target.

    With probability 1 − δ over the draw of the answers, this holds for all candidates right after these ranks at once,
    so any of them may be chosen, after seeing the labels too.

    Args:
        ranked: the answers.
        target_risk: the largest risk, in (0, 1).
        delta: δ, in (0, 1).
    """
    n = len(ranked.score)
    blocks: dict[int, Numbers] = {}

    def p_values(block: int) -> Numbers:
        # Runs share them, and of a million ranks few are reached.
        if block not in blocks:
            ranks = np.arange(block * _BLOCK, min((block + 1) * _BLOCK, n)) + 1
            blocks[block] = binomial_p_value(ranked.wrong[ranks - 1], ranks, target_risk)
        return blocks[block]

    runs = []
    for start in plan_starts(n, target_risk, delta):
        first = _find_first_rank(ranked, start)
        if not first:
            continue
        run = _test_until_failure(p_values, n, first, start.share)
        if run.last >= run.first:
            runs.append(run)
    return runs


def plan_starts(n: int, target_risk: float, delta: float) -> list[Start]:
    """Return the starts of runs, in rising order, or an empty list if n answers can't be enough.

    A run starts at the first rank where a number of wrong answers passes: 0 (1 if data is plenty), 8, 9, 11, and so on.
    Every second one of the later runs starts at a candidate, from halfway to the rank where one more wrong answer would
    pass, since that candidate may lie a little before.
    """
    has_plenty = n >= _PLENTY * find_fewest_released(0, target_risk, delta)
    latest = _LATEST_START * n

    def is_early(wrong: int) -> bool:
        return find_fewest_released(wrong, target_risk, delta) <= latest

    later = list(takewhile(is_early, _LATER_STARTS))
    first_share = delta * (_FIRST_SHARE if later else 1.0)
    first_rank = find_fewest_released(1 if has_plenty else 0, target_risk, first_share)
    starts = [Start(first_rank, first_share, at_candidate=False)]
    for place, wrong in enumerate(later):
        share = delta * (1 - _FIRST_SHARE) / len(later)
        rank = find_fewest_released(wrong, target_risk, share)
        at_candidate = place % 2 == 1
        if at_candidate:
            rank = (rank + find_fewest_released(wrong + 1, target_risk, share)) // 2
        starts.append(Start(rank, share, at_candidate))
    return [start for start in starts if start.rank <= n]


def has_certified_rank(
    ranked: RankedAnswers, candidate_ranks: Counts, target_risk: float, delta: float
) -> bool:
    """Tell whether a run reaches a candidate (ranks, rising, the last one n), faster than `find_certified_runs`."""
    for start in plan_starts(len(ranked.score), target_risk, delta):
        first = _find_first_rank(ranked, start)
        if not first:
            continue
        next_candidate = candidate_ranks[np.searchsorted(candidate_ranks, first)]
        ranks = np.arange(first, next_candidate + 1)
        p_value = binomial_p_value(ranked.wrong[ranks - 1], ranks, target_risk)
        if (p_value <= start.share).all():
            return True
    return False


def choose_bounded_rank(
    ranked: RankedAnswers, candidate_ranks: Counts, least: int, delta: float
) -> tuple[int, float]:
    """Choose the first candidate rank after `least` answers or more, and return it with an upper bound on its risk.

    The bound fails with probability δ at most: the candidate is chosen among ranks that are fixed beforehand, each with
    its share of δ. Half belongs to `least` itself. The other ranks, ever further apart, are for a block of ties at
    `least`.

    Args:
        ranked: the answers.
        candidate_ranks: the ranks to choose from, rising, the last one n.
        least: the number of answers to release at least.
        delta: δ, in (0, 1).
    """
    n = len(ranked.score)
    fixed_ranks = np.unique(np.minimum(least - 1 + 2 ** np.arange(n.bit_length() + 1), n))
    separating_ranks = np.append(0, np.flatnonzero(ranked.is_candidate) + 1)
    for fixed_rank in fixed_ranks.tolist():
        rank = int(
            separating_ranks[np.searchsorted(separating_ranks, fixed_rank, side="right") - 1]
        )
        if rank < least or rank != candidate_ranks[np.searchsorted(candidate_ranks, rank)]:
            continue
        if len(fixed_ranks) == 1:
            share = delta
        elif fixed_rank == least:
            share = delta / 2
        else:
            share = delta / 2 / (len(fixed_ranks) - 1)
        return rank, float(risk_upper_bound(ranked.wrong[rank - 1], rank, share))
    raise AssertionError("the rank after all answers is always a candidate")


def binomial_p_value(wrong: ArrayLike, released: ArrayLike, target_risk: float) -> Numbers:
    """Return P(Binomial(released, target) ≤ wrong): the exact p-value of "the risk is above the target"."""
    from scipy.special import bdtr

    n_wrong = np.asarray(wrong, float)
    n_released = np.asarray(released, np.int64)
    return np.asarray(bdtr(n_wrong, n_released, target_risk), np.float64)


def risk_upper_bound(wrong: ArrayLike, released: ArrayLike, delta: float) -> Numbers:
    """Return the Clopper–Pearson bound: the risk of a threshold chosen without the labels is at most this.

    The bound holds with probability 1 − δ. It does not bound the risk of the best of many candidates, for which
    `find_certified_runs` exists.
    """
    from scipy.special import betaincinv

    n_wrong, n_released = np.asarray(wrong, float), np.asarray(released, float)
    n_right = np.maximum(n_released - n_wrong, 1)
    bound = betaincinv(n_wrong + 1, n_right, 1 - delta)
    return np.where(n_wrong < n_released, bound, 1.0)


@lru_cache(maxsize=4096)
def find_fewest_released(wrong: int, target_risk: float, delta: float) -> int:
    """Return the least number of released answers at which this number of wrong ones still passes the test."""
    low, high = wrong, wrong + 1
    while binomial_p_value(wrong, high, target_risk) > delta:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if binomial_p_value(wrong, middle, target_risk) <= delta:
            high = middle
        else:
            low = middle
    return high


def _find_first_rank(ranked: RankedAnswers, start: Start) -> int:
    """Return the first rank that a run tests, or 0 if it is to start at a candidate and there is no candidate."""
    if not start.at_candidate:
        return start.rank
    # From the start's rank upwards to the top, which counts as a candidate.
    is_candidate_above = np.append(ranked.is_candidate[: start.rank][::-1], True)
    return start.rank - int(np.argmax(is_candidate_above))


def _test_until_failure(
    p_values: Callable[[int], Numbers], n: int, first: int, share: float
) -> Run:
    """Test rank after rank, with p-values that come in blocks, until a test fails."""
    for block in range((first - 1) // _BLOCK, (n - 1) // _BLOCK + 1):
        begin = max(first - 1 - block * _BLOCK, 0)
        has_failed = p_values(block)[begin:] > share
        if has_failed.any():
            return Run(first, block * _BLOCK + begin + int(np.argmax(has_failed)))
    return Run(first, n)
