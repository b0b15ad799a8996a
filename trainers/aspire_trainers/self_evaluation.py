"""Stage 3, self-evaluation learning: θs learns to tell right answers from wrong ones.

Minimises E over S_c of −log P(z_c | x, ŷ) + E over S_w of −log P(z_w | x, ŷ) over θs alone. The states of
`[θp ; x ; ŷ]` need no gradient, and the answers of one question share those of `[θp ; x]`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from pathlib import Path

import torch
from torch import Tensor

from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.soft_prompt import SoftPrompt
from aspire_trainers.answer_sampling import SampledAnswers
from aspire_trainers.batches import by_context
from aspire_trainers.config import SelfEvaluationConfig
from aspire_trainers.correctness import RougeL
from aspire_trainers.fit import Fit
from aspire_trainers.progress import Progress


@dataclass(frozen=True)
class LabelledAnswers:
    """The answers of one question that θs learns from, each with its weight in the loss.

    Attributes:
        texts: right and wrong answers.
        is_right: their labels.
    """

    question: str
    context: str | None
    texts: tuple[str, ...]
    is_right: tuple[bool, ...]

    @property
    def weights(self) -> list[float]:
        """1/|S_c| for right answers, 1/|S_w| for wrong ones: the two expectations of the objective."""
        n_right = sum(self.is_right)
        n_wrong = len(self.is_right) - n_right
        return [1 / n_right if right else 1 / n_wrong for right in self.is_right]


def label_answers(
    sampled: Sequence[SampledAnswers], config: SelfEvaluationConfig, correctness: RougeL, *, seed: int
) -> list[list[LabelledAnswers]]:
    """Batches of labelled answers, at most `config.answers` a question."""
    by_id = {answers.record.id: answers for answers in sampled}
    batches = by_context([answers.record for answers in sampled], config.batch_size, seed)
    return [[_label(by_id[record.id], config.answers, correctness, seed) for record in batch] for batch in batches]


def tune_self_evaluation(
    aspire: AspireLM,
    train: Sequence[Sequence[LabelledAnswers]],
    validation: Sequence[Sequence[LabelledAnswers]],
    config: SelfEvaluationConfig,
    *,
    seed: int,
    checkpoint: Path,
    progress: Progress,
) -> SoftPrompt:
    """Train θs on batches of labelled answers, from the last checkpoint where there is one."""
    self_eval = SoftPrompt.from_text(aspire.lm, config.init_text, config.length)
    aspire = replace(aspire, self_eval=self_eval)
    Fit(
        adapter=self_eval,
        batches=train,
        loss=lambda batch: self_evaluation_loss(aspire, batch),
        validate=(lambda: _mean_loss(aspire, validation)) if validation else None,
        config=config,
        seed=seed,
        checkpoint=checkpoint,
        progress=progress,
    ).run()
    return self_eval


def self_evaluation_loss(aspire: AspireLM, batch: Sequence[LabelledAnswers]) -> Tensor:
    """The objective of stage 3, mean over the questions of `batch`, in nats."""
    longest = max(len(item.texts) for item in batch)
    fill = [longest - len(item.texts) for item in batch]
    with torch.no_grad():
        prompts = aspire.prompt_states([(item.question, item.context) for item in batch])
        texts = [[*item.texts, *[""] * n] for item, n in zip(batch, fill, strict=True)]
        states, _, _ = aspire.answer_states(prompts, texts)
    log_p = aspire.verdict_logits(states).log_softmax(-1)
    device = log_p.device
    label = torch.tensor([[*(int(not r) for r in i.is_right), *[0] * n] for i, n in zip(batch, fill, strict=True)])
    weight = torch.tensor([[*i.weights, *[0.0] * n] for i, n in zip(batch, fill, strict=True)])
    chosen = log_p.gather(-1, label.to(device)[..., None])[..., 0]
    return -(chosen * weight.to(device)).sum() / len(batch)


def _label(answers: SampledAnswers, most: int, correctness: RougeL, seed: int) -> LabelledAnswers:
    """Right and wrong answers in turn, each kind in random order but for its first, until `most` are taken."""
    chance = random.Random(f"{seed}/{answers.record.id}")
    right, wrong = (
        [(text, is_right) for text in (kind[:1] + chance.sample(kind[1:], len(kind) - 1) if kind else [])]
        for kind, is_right in zip(answers.labelled(correctness), (True, False), strict=True)
    )
    in_turn = [item for item in chain.from_iterable(zip_longest(right, wrong)) if item is not None][:most]
    texts, labels = zip(*in_turn, strict=True)
    return LabelledAnswers(answers.record.question, answers.record.context, texts, labels)


@torch.inference_mode()
def _mean_loss(aspire: AspireLM, batches: Sequence[Sequence[LabelledAnswers]]) -> float:
    total = sum(float(self_evaluation_loss(aspire, batch)) * len(batch) for batch in batches)
    return total / sum(map(len, batches))
