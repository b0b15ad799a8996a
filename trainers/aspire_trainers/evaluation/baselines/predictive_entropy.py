"""Predictive entropy: how unsure the model is of its tokens, whatever they mean (Malinin and Gales 2021)."""

from __future__ import annotations

from statistics import fmean

from aspire_trainers.evaluation.baselines.baseline import AnsweredBatch, ScoreWithCost


class PredictiveEntropy:
    """−H, H = −1/n Σ log f_norm(s) over n samples s: the length-normalised Monte Carlo estimate, in nats."""

    name = "predictive_entropy"
    draws = True
    forward_passes = 0

    def score(self, answered: AnsweredBatch) -> list[ScoreWithCost]:
        """Return the negated entropy of each question's samples."""
        scores = []
        for samples, tokens in zip(answered.samples, answered.sampled_tokens, strict=True):
            mean = fmean(sample.log_likelihood for sample in samples)
            scores.append(ScoreWithCost(mean, tokens))
        return scores
