"""Stage 3, self-evaluation learning: θs learns to tell right answers from wrong ones.

Minimises E over S_c of −log P(z_c | x, ŷ) + E over S_w of −log P(z_w | x, ŷ) over θs alone. The states of
`[θp ; x ; ŷ]` need no gradient; those of a passage serve all its questions, and those of a question all its answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from aspire_guard.lm.adapter import Adapter
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.prefix_states import PrefixStates
from aspire_trainers.adapters import new_adapter
from aspire_trainers.config import SelfEvaluationConfig
from aspire_trainers.fit import Fit, mean_loss
from aspire_trainers.kept_states import KeptStates
from aspire_trainers.labelled_answers import LabelledAnswers, by_passage
from aspire_trainers.processes import part_of_mean
from aspire_trainers.progress import Progress


def tune_self_evaluation(
    aspire: AspireLM,
    train: Sequence[Sequence[LabelledAnswers]],
    validation: Sequence[Sequence[LabelledAnswers]],
    config: SelfEvaluationConfig,
    *,
    seed: int,
    checkpoint: Path,
    progress: Progress,
) -> Adapter:
    """Train θs on batches of labelled answers, from the last checkpoint where there is one."""
    self_eval = new_adapter(aspire.lm, config, seed=seed)
    aspire = replace(aspire, self_eval=self_eval)
    states = KeptStates(aspire, config.states_gib)

    def loss(batch: Sequence[LabelledAnswers]) -> Tensor:
        return self_evaluation_loss(aspire, batch, states.of(batch))

    Fit(
        adapter=self_eval,
        batches=train,
        loss=lambda batch: part_of_mean(loss, batch),
        validate=(lambda: mean_loss(loss, validation)) if validation else None,
        config=config,
        seed=seed,
        checkpoint=checkpoint,
        progress=progress,
    ).run()
    return self_eval


def self_evaluation_loss(aspire: AspireLM, batch: Sequence[LabelledAnswers], states: PrefixStates) -> Tensor:
    """The objective of stage 3, mean over the questions of `batch`, in nats; `states` as `KeptStates.of` gives them."""
    rows = by_passage(batch)
    texts = [[(item.question, text) for item in row for text in item.texts] for row in rows]
    log_p = aspire.verdict_logits(states, texts).log_softmax(-1)
    items = [item for row in rows for item in row]
    labels = torch.tensor([int(not right) for item in items for right in item.is_right], device=log_p.device)
    weights = torch.tensor([weight for item in items for weight in item.weights], device=log_p.device)
    return -(log_p.gather(-1, labels[:, None])[:, 0] * weights).sum() / len(batch)
