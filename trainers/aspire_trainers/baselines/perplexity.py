"""Perplexity: the normalised likelihood of the answer itself."""

from __future__ import annotations

from aspire_trainers.baselines.baseline import Answered, Priced


class Perplexity:
    """log f_norm(ŷ), in nats; it is there once the answer is."""

    name = "perplexity"
    draws = False
    forward_passes = 0

    def scores(self, answered: Answered) -> list[Priced]:
        """The mean log-probability of each answer's tokens."""
        return [Priced(value, 0) for value in answered.decoded.log_likelihoods]
