"""Stage 3, self-evaluation learning: θs learns to tell right answers from wrong ones.

It minimises E over S_c of −log P(z_c | x, ŷ) + E over S_w of −log P(z_w | x, ŷ) over θs alone. The states of
`[θp ; x ; ŷ]` need no gradient. The states of a passage serve all its questions, and the states of a question serve all
its answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from aspire_guard.lm.adapter import Adapter
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.language_model import pad
from aspire_guard.lm.prefix_states import PrefixStates
from aspire_trainers.config import SelfEvaluationConfig
from aspire_trainers.run.distributed import shard_mean_loss
from aspire_trainers.run.progress import Progress
from aspire_trainers.stages.adapter_trainer import AdapterTrainer, compute_mean_loss, make_adapter
from aspire_trainers.stages.labelling import LabelledAnswers, group_by_passage

_GIB = 2**30


def tune_self_evaluation(
    aspire: AspireLM,
    train: Sequence[Sequence[LabelledAnswers]],
    validation: Sequence[Sequence[LabelledAnswers]],
    config: SelfEvaluationConfig,
    *,
    seed: int,
    checkpoint: str | Path,
    progress: Progress,
) -> Adapter:
    """Train θs on batches of labelled answers, from the last checkpoint if there is one.

    If the model has a θs, a copy of it is trained, unless `config.from_scratch` is set.
    """
    start = None if config.from_scratch else aspire.self_eval
    self_eval = make_adapter(aspire.lm, config, seed=seed, start=start)
    aspire = replace(aspire, self_eval=self_eval)
    states = StateCache(aspire, config.states_gib)

    def loss(batch: Sequence[LabelledAnswers]) -> Iterator[Tensor]:
        return self_evaluation_loss(aspire, batch, states.get(batch), config.token_budget)

    AdapterTrainer(
        adapter=self_eval,
        batches=train,
        loss=lambda batch: shard_mean_loss(loss, batch),
        validate=(lambda: compute_mean_loss(loss, validation)) if validation else None,
        config=config,
        seed=seed,
        checkpoint=checkpoint,
        progress=progress,
        start_counts=start is not None,
    ).run()
    return self_eval


class StateCache:
    """A cache of the states of `[θp ; x ; ŷ]` for batches of answers, without gradient.

    Args:
        aspire: the model under θp.
        gib: memory for the cached states, in GiB. The states of batches beyond it are computed at every call.
    """

    def __init__(self, aspire: AspireLM, gib: float) -> None:
        self._aspire = aspire
        self._free_bytes = gib * _GIB
        self._cached: dict[tuple[LabelledAnswers, ...], PrefixStates] = {}

    def get(self, batch: Sequence[LabelledAnswers]) -> PrefixStates:
        """Return a row for each passage of the batch and a branch for each answer, in `group_by_passage` order."""
        key = tuple(batch)
        if key in self._cached:
            return self._cached[key]
        states = compute_answer_states(self._aspire, batch)
        size = sum(tensor.nbytes for layer in states.layers for tensor in layer)
        if size <= self._free_bytes:
            self._free_bytes -= size
            self._cached[key] = states
        return states


@torch.no_grad()
def compute_answer_states(aspire: AspireLM, batch: Sequence[LabelledAnswers]) -> PrefixStates:
    """Compute the states of a batch, without the cache."""
    passages = []
    for items in group_by_passage(batch):
        answers: list[tuple[str, str | None, str]] = []
        for item in items:
            answers += [(item.question, item.context, text) for text in item.texts]
        passages.append(answers)
    return aspire.answer_branches(passages)


def self_evaluation_loss(
    aspire: AspireLM, batch: Sequence[LabelledAnswers], states: PrefixStates, token_budget: int
) -> Iterator[Tensor]:
    """Yield the parts of stage 3's objective, which add up to its mean over the questions of `batch`, in nats.

    Args:
        aspire: the model with the θs that is trained.
        batch: labelled answers.
        states: the states of these answers, as `StateCache.get` returns them.
        token_budget: the largest number of tokens of `[θp ; x ; ŷ]` that a part attends to. A single longer answer is a
            part by itself.
    """
    answers = _list_answers(batch)
    answers_per_part = max(1, token_budget // int(states.lengths.max()))
    for first in range(0, len(answers), answers_per_part):
        part = answers[first : first + answers_per_part]
        yield _weighted_loss(aspire, part, states) / len(batch)


class _Answer(NamedTuple):
    """An answer and the position of its states: branch `branch` of row `row`.

    Attributes:
        label: 0 for z_c and 1 for z_w.
        weight: weight of the answer in the loss.
    """

    row: int
    branch: int
    question: str
    text: str
    label: int
    weight: float


def _list_answers(batch: Sequence[LabelledAnswers]) -> list[_Answer]:
    """List the answers row by row: a row holds the answers about a passage."""
    answers: list[_Answer] = []
    for row, items in enumerate(group_by_passage(batch)):
        branch = 0
        for item in items:
            labelled = zip(item.texts, item.is_right, item.weights, strict=True)
            for text, is_right, weight in labelled:
                label = 0 if is_right else 1
                answers.append(_Answer(row, branch, item.question, text, label, weight))
                branch += 1
    return answers


def _weighted_loss(aspire: AspireLM, part: Sequence[_Answer], states: PrefixStates) -> Tensor:
    """Return the weighted sum of the cross-entropies of neighbouring answers."""
    device = states.visible.device
    answers_by_row: dict[int, list[_Answer]] = {}
    for answer in part:
        answers_by_row.setdefault(answer.row, []).append(answer)
    branch_indices: list[Tensor] = []
    texts: list[list[tuple[str, str]]] = []
    for answers in answers_by_row.values():
        branch_indices.append(torch.tensor([answer.branch for answer in answers], device=device))
        texts.append([(answer.question, answer.text) for answer in answers])

    row_index = torch.tensor(list(answers_by_row), device=device)  # (rows,)
    branch_index, _ = pad(branch_indices)  # (rows, branches)
    part_states = states.select_rows(row_index).select_branches(branch_index)
    logits = aspire.verdict_logits(part_states, texts)  # (answers, 2)
    labels = torch.tensor([answer.label for answer in part], device=device)
    losses = cross_entropy(logits, labels, reduction="none")  # (answers,)
    weights = losses.new_tensor([answer.weight for answer in part])
    return losses @ weights
