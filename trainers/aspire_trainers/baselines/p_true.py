"""P(True): Self-eval with sampled answers in view, which show what else might be true (Kadavath et al. 2022)."""

from __future__ import annotations

from aspire_trainers.baselines.baseline import Answered, Priced
from aspire_trainers.baselines.follow_up import QUESTION, log_p_true

_IDEAS = "Some ideas that were brainstormed:"


class PTrue:
    """log P("true") against "false", in nats, with the samples shown before the proposed answer."""

    name = "p_true"
    draws = True
    forward_passes = 1

    def scores(self, answered: Answered) -> list[Priced]:
        """The verdict on each answer."""
        texts = [
            "\n".join([_IDEAS, *(idea.text for idea in samples), f"Proposed answer: {text}", QUESTION])
            for samples, text in zip(answered.samples, answered.decoded.texts, strict=True)
        ]
        verdicts = log_p_true(answered, texts)
        return [
            Priced(score, tokens + drawn)
            for (score, tokens), drawn in zip(verdicts, answered.sampled_tokens, strict=True)
        ]
