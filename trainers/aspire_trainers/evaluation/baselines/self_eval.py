"""Self-eval: the model is asked whether its answer is true, without having been taught to tell."""

from __future__ import annotations

from aspire_trainers.evaluation.baselines.baseline import AnsweredBatch, ScoreWithCost
from aspire_trainers.evaluation.baselines.follow_up import QUESTION, log_p_true


class SelfEval:
    """log P("true") against "false", in nats, on the states that the answer has left behind."""

    name = "self_eval"
    draws = False
    forward_passes = 1

    def scores(self, answered: AnsweredBatch) -> list[ScoreWithCost]:
        """The verdict on each answer."""
        return log_p_true(
            answered, [f"Proposed answer: {text}\n{QUESTION}" for text in answered.decoded.texts]
        )
