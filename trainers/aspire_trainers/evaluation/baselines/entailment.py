"""Entailment between two answers to a question, by which semantic entropy clusters answers."""

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
        """Tell for each pair of answers to `question` whether the first answer entails the second."""
        ...


@dataclass(frozen=True)
class RougeEntailment:
    """Entailment by Rouge-L: an answer entails the answers that it contains.

    Attributes:
        threshold: the least share of the second answer's words that the first must hold in the same order, in (0, 1].
            This is the Rouge-L recall of the second answer in the first.
    """

    threshold: float = 0.7

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise InputError(
                f"entailment: expected 0 < threshold ≤ 1, found {self.threshold}; pass e.g. 0.7."
            )

    def entails(self, question: str, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Tell whether each first answer holds enough of the second. The question is not considered."""
        return [self._contains(first, second) for first, second in pairs]

    def _contains(self, first: str, second: str) -> bool:
        if first == second:
            return True
        recall = float(_SCORER.score(second, first)["rougeL"].recall)
        return recall >= self.threshold
