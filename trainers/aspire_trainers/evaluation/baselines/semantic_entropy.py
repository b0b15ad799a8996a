"""Semantic entropy: how unsure the model is of what its answers mean (Kuhn et al. 2023, Farquhar et al. 2024)."""

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

    p(c) is the sum of f_norm over the samples of c, divided by the sum over all samples.

    Args:
        entailment: the judge of entailment between answers. Its own cost is not counted in tokens.
    """

    entailment: Entailment = field(default_factory=RougeEntailment)

    name = "semantic_entropy"
    draws = True
    forward_passes = 0

    def score(self, answered: AnsweredBatch) -> list[ScoreWithCost]:
        """Return the negated entropy of each question's clusters."""
        rows = zip(answered.records, answered.samples, answered.sampled_tokens, strict=True)
        return [
            ScoreWithCost(-self._compute_entropy(record.question, samples), tokens)
            for record, samples, tokens in rows
        ]

    def _compute_entropy(self, question: str, samples: Sequence[Answer]) -> float:
        texts = [sample.text for sample in samples]
        clusters = np.array(cluster_answers(question, texts, self.entailment))
        log_likelihoods = np.array([sample.log_likelihood for sample in samples])
        log_masses = []
        for cluster in range(clusters.max() + 1):
            log_masses.append(logsumexp(log_likelihoods[clusters == cluster]))
        return float(entr(softmax(log_masses)).sum())


def cluster_answers(question: str, answers: Sequence[str], entailment: Entailment) -> list[int]:
    """Return the cluster of each answer. Clusters are numbered from 0 in the order in which they appear.

    An answer joins the first cluster whose first answer entails it and is entailed by it.
    """
    cluster_of: dict[str, int] = {}
    first_answers: list[str] = []
    for answer in answers:
        if answer in cluster_of:
            continue
        entailed = entailment.entails(question, [(first, answer) for first in first_answers])
        entailing = entailment.entails(question, [(answer, first) for first in first_answers])
        directions = zip(entailed, entailing, strict=True)
        equal = [cluster for cluster, both in enumerate(directions) if all(both)]
        if equal:
            cluster_of[answer] = equal[0]
        else:
            cluster_of[answer] = len(first_answers)
            first_answers.append(answer)
    return [cluster_of[answer] for answer in answers]
