"""Self-eval: the model is asked whether its answer is true, although it was not trained to tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aspire_guard.lm.language_model import pad
from aspire_trainers.evaluation.baselines.baseline import AnsweredBatch, ScoreWithCost
from aspire_trainers.evaluation.prompting import FALSE, TRUE

QUESTION = "Is the proposed answer true or false?"


class SelfEval:
    """log P("true") against "false", in nats, computed on the states that decoding the answer left behind."""

    name = "self_eval"
    draws = False
    forward_passes = 1

    def score(self, answered: AnsweredBatch) -> list[ScoreWithCost]:
        """Return the model's verdict on each answer."""
        texts = answered.decoded.texts
        return compute_log_p_true(
            answered, [f"Proposed answer: {text}\n{QUESTION}" for text in texts]
        )


def compute_log_p_true(answered: AnsweredBatch, questions: Sequence[str]) -> list[ScoreWithCost]:
    """Return log P("true") against "false", in nats, when each question follows its answer, and the tokens read."""
    judge = replace(answered.prompting.aspire, correct=TRUE, wrong=FALSE)
    rows = [answered.prompting.encode_follow_up(question) for question in questions]
    ids, mask = pad(rows)  # (batch, tokens)
    embeddings = judge.lm.embed(ids)  # (batch, tokens, dim)
    states, _ = judge.reading_lm.extend(answered.decoded.states, embeddings[:, None], mask[:, None])
    logits = judge.word_logits(states.hidden)[:, 0]  # (batch, 2): true, false
    log_p_true = logits.log_softmax(-1)[:, 0]  # (batch,)
    tokens = mask.sum(-1)
    return [
        ScoreWithCost(score, count)
        for score, count in zip(log_p_true.tolist(), tokens.tolist(), strict=True)
    ]
