"""P(True): Self-eval with sampled answers in view, which show what else might be true (Kadavath et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence

from aspire_trainers.evaluation.baselines.baseline import AnsweredBatch, ScoreWithCost
from aspire_trainers.evaluation.baselines.follow_up import QUESTION, log_p_true

_IDEAS = "Some ideas that were brainstormed:"


class PTrue:
    """log P("true") against "false", in nats, with the samples before the proposed answer, as many as find room."""

    name = "p_true"
    draws = True
    forward_passes = 1

    def scores(self, answered: AnsweredBatch) -> list[ScoreWithCost]:
        """The verdict on each answer."""
        rooms = (
            answered.prompting.aspire.lm.max_length - answered.decoded.states.lengths[:, 0]
        ).tolist()
        texts = [
            _fitting(answered, [idea.text for idea in samples], text, room)
            for samples, text, room in zip(
                answered.samples, answered.decoded.texts, rooms, strict=True
            )
        ]
        verdicts = log_p_true(answered, texts)
        return [
            ScoreWithCost(score, tokens + drawn)
            for (score, tokens), drawn in zip(verdicts, answered.sampled_tokens, strict=True)
        ]


def p_true_question(ideas: Sequence[str], answer: str) -> str:
    """What is asked after an answer."""
    return "\n".join([_IDEAS, *ideas, f"Proposed answer: {answer}", QUESTION])


def _fitting(answered: AnsweredBatch, ideas: Sequence[str], answer: str, room: int) -> str:
    """The question with the first ideas, all if so many tokens hold them."""
    texts = (p_true_question(ideas[:n], answer) for n in range(len(ideas), -1, -1))
    return next(
        (text for text in texts if len(answered.prompting.follow_up(text)) <= room),
        p_true_question([], answer),
    )
