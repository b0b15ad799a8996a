"""Semantic entropy: how unsure the model is of what it means (Kuhn et al. 2023, Farquhar et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import entr, logsumexp, softmax

from aspire_guard.lm.aspire_lm import Answer
from aspire_trainers.evaluation.baselines.baseline import AnsweredBatch, ScoreWithCost
from aspire_trainers.evaluation.baselines.entailment import Entailment, RougeEntailment


@dataclass(frozen=True)
class SemanticEntropy:
    """−H, H = −Σ p(c) log p(c) over clusters c of samples that entail one another, in nats.

    p(c) is the sum of f_norm over the samples of c, divided by that over all samples.

    Args:
        entailment: what tells whether one answer entails another; its own cost is not counted in tokens.
    """

    entailment: Entailment = field(default_factory=RougeEntailment)

    name = "semantic_entropy"
    draws = True
    forward_passes = 0

    def scores(self, answered: AnsweredBatch) -> list[ScoreWithCost]:
        """The negated entropy of each question's clusters."""
        rows = zip(answered.records, answered.samples, answered.sampled_tokens, strict=True)
        return [
            ScoreWithCost(-self._entropy(record.question, samples), tokens)
            for record, samples, tokens in rows
        ]

    def _entropy(self, question: str, samples: Sequence[Answer]) -> float:
        cluster = np.array(
            cluster_answers(question, [sample.text for sample in samples], self.entailment)
        )
        log_likelihood = np.array([sample.log_likelihood for sample in samples])
        log_mass = np.array(
            [logsumexp(log_likelihood[cluster == c]) for c in range(cluster.max() + 1)]
        )
        return float(entr(softmax(log_mass)).sum())


def cluster_answers(question: str, answers: Sequence[str], entailment: Entailment) -> list[int]:
    """The cluster of each answer, numbered from 0 in the order in which they appear.

    An answer joins the first cluster whose first answer entails it and is entailed by it.
    """
    cluster_of: dict[str, int] = {}
    firsts: list[str] = []
    for answer in answers:
        if answer in cluster_of:
            continue
        there = entailment.entails(question, [(first, answer) for first in firsts])
        back = entailment.entails(question, [(answer, first) for first in firsts])
        equal = [i for i, both in enumerate(zip(there, back, strict=True)) if all(both)]
        cluster_of[answer] = equal[0] if equal else len(firsts)
        if not equal:
            firsts.append(answer)
    return [cluster_of[answer] for answer in answers]
