"""Perplexity: the normalised likelihood of the answer itself."""

from __future__ import annotations

from aspire_trainers.evaluation.baselines.baseline import AnsweredBatch, ScoreWithCost


class Perplexity:
    """log f_norm(ŷ), in nats, which decoding the answer has computed already."""

    name = "perplexity"
    draws = False
    forward_passes = 0

    def score(self, answered: AnsweredBatch) -> list[ScoreWithCost]:
        """Return the mean log-probability of each answer's tokens."""
        return [ScoreWithCost(value, 0) for value in answered.decoded.log_likelihoods]
