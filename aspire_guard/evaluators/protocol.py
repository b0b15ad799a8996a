"""The protocols of evaluators: the one that every evaluator has, and the optional ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeGuard, runtime_checkable

from aspire_guard.exchange import Exchange
from aspire_guard.verdict import Score


@runtime_checkable
class Evaluator(Protocol):
    """A scorer of exchanges, which is safe to call from several threads at once.

    An evaluator may also be `GroupedThresholds`, `Fingerprinted` or `IncrementalEvaluator`: the
    guard uses each of these if it is there.
    """

    @property
    def threshold(self) -> float:
        """The lowest confidence that is released, in [0, 1]."""
        ...

    @property
    def guarantee(self) -> str | None:
        """The promise of that threshold in one sentence, or None if it makes no promise."""
        ...

    def score(self, exchanges: Sequence[Exchange]) -> list[Score]:
        """Score the exchanges, in their order. A score does not depend on the rest of the batch."""
        ...


@dataclass(frozen=True)
class NamedThreshold:
    """A threshold of an evaluator for one group and one band.

    Attributes:
        confidence: the lowest confidence of the band, in [0, 1].
        guarantee: the promise of the threshold in one sentence, or None if it makes no promise.
    """

    confidence: float
    guarantee: str | None


class GroupedThresholds(Protocol):
    """An evaluator with thresholds of its own for groups of questions, or for further bands."""

    def threshold_for(self, group: str | None, name: str = "accept") -> NamedThreshold | None:
        """Return the threshold of a group's band, or None if there is no such threshold."""
        ...


class Fingerprinted(Protocol):
    """An evaluator whose scores may come from the model that answered.

    A model of this process that scored its own answer keeps the score under the evaluator's
    fingerprint and the exchange. The guard uses that score if both are its own.
    """

    @property
    def fingerprint(self) -> str:
        """A digest (hex) of everything the scores depend on."""
        ...


class IncrementalEvaluator(Protocol):
    """An evaluator that scores an answer while it grows, and reads each token once."""

    def score_incrementally(self, question: str, context: str | None) -> Callable[[str], Score]:
        """Return a function that appends a text to the answer and scores the answer so far."""
        ...


# Since Python 3.12, isinstance() doesn't see attributes that come from __getattr__. An evaluator that wraps another one
# that way would lose its groups' thresholds, so the functions below look for the attributes themselves.


def has_grouped_thresholds(evaluator: Evaluator) -> TypeGuard[GroupedThresholds]:
    """Tell whether an evaluator, or the one that it wraps, has `threshold_for`."""
    return getattr(evaluator, "threshold_for", None) is not None


def is_incremental(evaluator: Evaluator) -> TypeGuard[IncrementalEvaluator]:
    """Tell whether an evaluator, or the one that it wraps, has `score_incrementally`."""
    return getattr(evaluator, "score_incrementally", None) is not None


def find_fingerprint(evaluator: Evaluator) -> str | None:
    """Return the evaluator's fingerprint, or None if it has no fingerprint."""
    fingerprint: str | None = getattr(evaluator, "fingerprint", None)
    return fingerprint
