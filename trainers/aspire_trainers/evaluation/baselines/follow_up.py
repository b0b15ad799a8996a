"""Ask the model after an answer whether it is true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aspire_guard.lm.language_model import pad
from aspire_trainers.evaluation.baselines.baseline import AnsweredBatch, ScoreWithCost
from aspire_trainers.evaluation.prompting import FALSE, TRUE

QUESTION = "Is the proposed answer true or false?"


def log_p_true(answered: AnsweredBatch, texts: Sequence[str]) -> list[ScoreWithCost]:
    """log P("true") against "false" when the text of each answer is asked after it, in nats, with the tokens read."""
    judge = replace(answered.prompting.aspire, correct=TRUE, wrong=FALSE)
    ids, mask = pad([answered.prompting.follow_up(text) for text in texts])
    states, _ = judge.answering_lm.extend(
        answered.decoded.states, judge.lm.embed(ids)[:, None], mask[:, None]
    )
    log_p = judge.word_logits(states.hidden)[:, 0].log_softmax(-1)[:, 0]
    return [ScoreWithCost(*row) for row in zip(log_p.tolist(), mask.sum(-1).tolist(), strict=True)]
