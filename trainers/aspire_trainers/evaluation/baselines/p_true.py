"""P(True): Self-eval with sampled answers in view, which show what else might be true (Kadavath et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence

from aspire_trainers.evaluation.baselines.baseline import AnsweredBatch, ScoreWithCost
from aspire_trainers.evaluation.baselines.self_eval import QUESTION, compute_log_p_true
from aspire_trainers.evaluation.prompting import Prompting

_IDEAS = "Some ideas that were brainstormed:"


class PTrue:
    """log P("true") against "false", in nats, after the samples that fit the model's window and the proposed answer."""

    name = "p_true"
    draws = True
    forward_passes = 1

    def score(self, answered: AnsweredBatch) -> list[ScoreWithCost]:
        """Return the model's verdict on each answer."""
        window = answered.prompting.aspire.lm.max_length
        used_tokens = answered.decoded.states.lengths[:, 0].tolist()
        rows = zip(answered.samples, answered.decoded.texts, used_tokens, strict=True)
        questions = []
        for samples, answer, used in rows:
            ideas = [sample.text for sample in samples]
            question = _fit_p_true_question(answered.prompting, ideas, answer, window - used)
            questions.append(question)
        verdicts = compute_log_p_true(answered, questions)
        return [
            ScoreWithCost(verdict.score, verdict.tokens + sampled)
            for verdict, sampled in zip(verdicts, answered.sampled_tokens, strict=True)
        ]


def format_p_true_question(ideas: Sequence[str], answer: str) -> str:
    """Return the question that follows an answer."""
    return "\n".join([_IDEAS, *ideas, f"Proposed answer: {answer}", QUESTION])


def _fit_p_true_question(prompting: Prompting, ideas: Sequence[str], answer: str, room: int) -> str:
    """Return the question with as many of the first ideas as fit in `room` tokens."""
    for n in range(len(ideas), -1, -1):
        question = format_p_true_question(ideas[:n], answer)
        if len(prompting.encode_follow_up(question)) <= room:
            return question
    return format_p_true_question([], answer)
