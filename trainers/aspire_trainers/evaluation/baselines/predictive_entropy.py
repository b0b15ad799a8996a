"""Predictive entropy: how unsure the model is of its tokens, whatever they mean (Malinin and Gales 2021)."""

from __future__ import annotations

from statistics import fmean

from aspire_trainers.evaluation.baselines.baseline import AnsweredBatch, ScoreWithCost


class PredictiveEntropy:
    """−H, H = −1/n Σ log f_norm(s) over n samples s: the length-normalised Monte Carlo estimate, in nats."""

    name = "predictive_entropy"
    draws = True
    forward_passes = 0

    def scores(self, answered: AnsweredBatch) -> list[ScoreWithCost]:
        """The negated entropy of each question's samples."""
        return [
            ScoreWithCost(fmean(sample.log_likelihood for sample in samples), tokens)
            for samples, tokens in zip(answered.samples, answered.sampled_tokens, strict=True)
        ]
