"""P(True): the model is shown sampled answers and asked whether one of them is true (Kadavath et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.language_model import LanguageModel
from aspire_guard.lm.template import PromptTemplate

_TEMPLATE = PromptTemplate(
    question="{question}\nIs the possible answer true or false? The possible answer is",
)
_QUESTION = "Question: {question}\nSome ideas that were brainstormed:\n{ideas}\nPossible answer: {answer}"


@torch.inference_mode()
def p_true(lm: LanguageModel, items: Sequence[tuple[str, str | None, str, Sequence[str]]]) -> list[float]:
    """log P("true") against "false" of the pre-trained model, in nats, one forward pass an item.

    Args:
        lm: the base model, without adapters.
        items: (question, context, proposed answer, sampled answers) each; items of one context share its states.
    """
    judge = AspireLM(lm, template=_TEMPLATE, correct=" true", wrong=" false")
    prompts = [
        (_QUESTION.format(question=question, ideas="\n".join(ideas), answer=answer), context)
        for question, context, answer, ideas in items
    ]
    logits = judge.word_logits(judge.prompt_states(prompts).hidden)
    return [float(value) for value in logits.log_softmax(-1)[:, 0, 0]]
