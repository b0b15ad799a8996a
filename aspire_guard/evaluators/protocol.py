"""What every evaluator is: it scores finished answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from aspire_guard.exchange import Exchange
from aspire_guard.verdict import Score


@runtime_checkable
class Evaluator(Protocol):
    """Scores exchanges; safe to call from several threads at once.

    An evaluator may also have a `fingerprint`: an answering model that scored itself with the same
    evaluator names it on its message, and that score is then used.
    """

    @property
    def threshold(self) -> float:
        """The least confidence that should be released, in [0, 1]."""
        ...

    @property
    def guarantee(self) -> str | None:
        """What that threshold promises, in one sentence; None where it promises nothing."""
        ...

    def score(self, exchanges: Sequence[Exchange]) -> list[Score]:
        """One score an exchange, in their order, independent of what else is in the batch."""
        ...
