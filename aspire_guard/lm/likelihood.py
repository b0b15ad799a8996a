"""The likelihood of an answer that its model was cut off in."""

from __future__ import annotations

from torch import Tensor

from aspire_guard.lm.language_model import LanguageModel


def with_end(lm: LanguageModel, means: Tensor, lengths: Tensor, hidden: Tensor, cut: Tensor) -> Tensor:
    """Mean log-probabilities of answers, the end token's included also after those that were cut before it.

    Without it a text would have another log f_norm where it is generated than where it is read, and an answer would
    look the better for not having come to its end.

    Args:
        lm: the model that answered.
        means: `(batch, k)`: mean log-probability of each answer's tokens, in nats.
        lengths: `(batch, k)`: how many tokens that is.
        hidden: `(batch, k, hidden)`: what predicts the token after each.
        cut: `(batch, k)`: which answers were cut.
    """
    log_end = lm.logits(hidden[cut]).log_softmax(-1)[:, lm.end_id]
    n = lengths[cut]
    return means.masked_scatter(cut, (means[cut] * n + log_end) / (n + 1))
