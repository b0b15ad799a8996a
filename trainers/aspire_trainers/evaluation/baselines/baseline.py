"""The interface of the baselines: they read a batch of answers, and return a score and its cost for each answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from aspire_guard.lm.aspire_lm import Answer
from aspire_trainers.evaluation.prompting import DecodedAnswers, Prompting
from aspire_trainers.record import QARecord


@dataclass(frozen=True)
class AnsweredBatch:
    """A batch of answered questions. All baselines read the same answers, samples and states.

    Attributes:
        prompting: the way of asking that the answers were made with.
        records: the questions.
        decoded: the answers ŷ and the states of `[x ; ŷ]`.
        samples: for each question the answers that stand for the model's distribution.
        sampled_tokens: for each question the tokens that drawing them took, or 0 if the beams serve as samples.
    """

    prompting: Prompting
    records: Sequence[QARecord]
    decoded: DecodedAnswers
    samples: Sequence[Sequence[Answer]]
    sampled_tokens: Sequence[int]

    def count_answer_tokens(self) -> list[int]:
        """Count the tokens of answering each question: the prompt, and each generated token once a beam."""
        prompt_tokens = self.decoded.prompts.lengths[:, 0].tolist()
        counts = []
        for tokens, beams in zip(prompt_tokens, self.decoded.beams, strict=True):
            counts.append(tokens + sum(beam.tokens for beam in beams))
        return counts


class ScoreWithCost(NamedTuple):
    """A score, higher if the answer is more likely right, and the number of tokens that were run for it alone."""

    score: float
    tokens: int


class Baseline(Protocol):
    """A score of answers.

    Attributes:
        name: name of the score's row in the table.
        draws: True if the score needs sampled answers.
        forward_passes: forward passes of the answering model for each answer, besides generations.
    """

    name: str
    draws: bool
    forward_passes: int

    def score(self, answered: AnsweredBatch) -> list[ScoreWithCost]:
        """Return the score of each answer."""
        ...
