"""What every baseline reads, and what it gives: a score an answer, with its price."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from aspire_guard.lm.aspire_lm import Answer
from aspire_trainers.evaluation.prompting import Decoded, Prompting
from aspire_trainers.record import QARecord


@dataclass(frozen=True)
class AnsweredBatch:
    """A batch of answered questions; all baselines read the same answers, samples and states.

    Attributes:
        prompting: the way of asking that the answers were made with.
        records: the questions.
        decoded: the answers ŷ and the states of `[x ; ŷ]`.
        samples: of each question the answers that stand for the model's distribution.
        sampled_tokens: of each question the tokens that drawing them took; 0 where the beams serve as samples.
    """

    prompting: Prompting
    records: Sequence[QARecord]
    decoded: Decoded
    samples: Sequence[Sequence[Answer]]
    sampled_tokens: Sequence[int]


class ScoreWithCost(NamedTuple):
    """A score, higher where the answer is more likely right, and the tokens that were run for it alone."""

    score: float
    tokens: int


class Baseline(Protocol):
    """A score of answers.

    Attributes:
        name: of its row in the table.
        draws: whether it needs sampled answers.
        forward_passes: of the answering model, an answer, beside generations.
    """

    name: str
    draws: bool
    forward_passes: int

    def scores(self, answered: AnsweredBatch) -> list[ScoreWithCost]:
        """The score of each answer."""
        ...
