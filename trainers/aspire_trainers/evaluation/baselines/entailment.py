"""Whether one answer to a question entails another: what semantic entropy clusters by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rouge_score.rouge_scorer import RougeScorer

from aspire_guard.errors import InputError
from aspire_trainers.correctness.tokenizer import UnicodeTokenizer

_SCORER = RougeScorer(["rougeL"], tokenizer=UnicodeTokenizer())


class Entailment(Protocol):
    """A judge of entailment."""

    def entails(self, question: str, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether the first answer of each pair entails the second, both given to `question`."""
        ...


@dataclass(frozen=True)
class RougeEntailment:
    """An answer entails what it contains: Rouge-L recall of the second answer in the first.

    Attributes:
        threshold: the least share of the second answer's words that the first must hold in the same order, in (0, 1].
    """

    threshold: float = 0.7

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise InputError(
                f"entailment: expected 0 < threshold ≤ 1, found {self.threshold}; pass e.g. 0.7."
            )

    def entails(self, question: str, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether enough of each second answer is in the first; the question has no part in it."""
        return [
            first == second
            or float(_SCORER.score(second, first)["rougeL"].recall) >= self.threshold
            for first, second in pairs
        ]
