"""Stage 3, self-evaluation learning: θs learns to tell right answers from wrong ones.

Minimises E over S_c of −log P(z_c | x, ŷ) + E over S_w of −log P(z_w | x, ŷ) over θs alone. The states of
`[θp ; x ; ŷ]` need no gradient; those of a passage serve all its questions, and those of a question all its answers.
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
from aspire_trainers.run.distributed import sharded_mean_loss
from aspire_trainers.run.progress import Progress
from aspire_trainers.stages.adapter_trainer import AdapterTrainer, make_adapter, mean_loss
from aspire_trainers.stages.labelling import LabelledAnswers, group_by_passage


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
    """Train θs on batches of labelled answers, from the last checkpoint where there is one.

    Where the model has a θs, a copy of it is trained, unless `config` says "from scratch".
    """
    start = None if config.from_scratch else aspire.self_eval
    self_eval = make_adapter(aspire.lm, config, seed=seed, start=start)
    aspire = replace(aspire, self_eval=self_eval)
    states = StateCache(aspire, config.states_gib)

    def loss(batch: Sequence[LabelledAnswers]) -> Iterator[Tensor]:
        return self_evaluation_loss(aspire, batch, states.of(batch), config.token_budget)

    AdapterTrainer(
        adapter=self_eval,
        batches=train,
        loss=lambda batch: sharded_mean_loss(loss, batch),
        validate=(lambda: mean_loss(loss, validation)) if validation else None,
        config=config,
        seed=seed,
        checkpoint=checkpoint,
        progress=progress,
        start_counts=start is not None,
    ).run()
    return self_eval


def self_evaluation_loss(
    aspire: AspireLM, batch: Sequence[LabelledAnswers], states: PrefixStates, token_budget: int
) -> Iterator[Tensor]:
    """The objective of stage 3, mean over the questions of `batch`, in nats, in parts that add up to it.

    Args:
        aspire: with the θs that is trained.
        batch: labelled answers.
        states: of these answers, as `StateCache.of` gives them.
        token_budget: tokens of `[θp ; x ; ŷ]` that a part attends to at most, but for a single longer answer.
    """
    device = states.visible.device
    for part in _parts(group_by_passage(batch), max(1, token_budget // int(states.lengths.max()))):
        branches, _ = pad(
            [
                torch.tensor([answer.branch for answer in row], device=device)
                for row in part.values()
            ]
        )
        answers = states.select_rows(torch.tensor(list(part), device=device)).select_branches(
            branches
        )
        logits = aspire.verdict_logits(
            answers, [[answer.pair for answer in row] for row in part.values()]
        )
        labels, weights = zip(
            *((answer.label, answer.weight) for row in part.values() for answer in row), strict=True
        )
        losses = cross_entropy(logits, torch.tensor(labels, device=device), reduction="none")
        yield losses @ losses.new_tensor(weights) / len(batch)


class _Answer(NamedTuple):
    """One branch of a passage's row: (question, answer), its label, 0 for z_c and 1 for z_w, and its weight."""

    branch: int
    pair: tuple[str, str]
    label: int
    weight: float


def _parts(
    rows: Sequence[Sequence[LabelledAnswers]], size: int
) -> Iterator[dict[int, list[_Answer]]]:
    """Neighbouring answers, at most `size` at a time, by row."""
    answers = [
        (number, _Answer(branch, pair, label, weight))
        for number, row in enumerate(rows)
        for branch, (pair, label, weight) in enumerate(
            ((item.question, text), int(not right), weight)
            for item in row
            for text, right, weight in zip(item.texts, item.is_right, item.weights, strict=True)
        )
    ]
    for start in range(0, len(answers), size):
        part: dict[int, list[_Answer]] = {}
        for number, answer in answers[start : start + size]:
            part.setdefault(number, []).append(answer)
        yield part


_GIB = 2**30


class StateCache:
    """The states of `[θp ; x ; ŷ]` for batches of answers, without gradient.

    Args:
        aspire: the model under θp.
        gib: memory to keep states in, in GiB; those of batches that find no room are computed at every call.
    """

    def __init__(self, aspire: AspireLM, gib: float) -> None:
        self._aspire = aspire
        self._room = gib * _GIB
        self._kept: dict[tuple[LabelledAnswers, ...], PrefixStates] = {}

    def of(self, batch: Sequence[LabelledAnswers]) -> PrefixStates:
        """A row a passage of the batch, a branch an answer, in the order of `group_by_passage`."""
        key = tuple(batch)
        if key in self._kept:
            return self._kept[key]
        states = compute_answer_states(self._aspire, batch)
        size = sum(tensor.nbytes for layer in states.layers for tensor in layer)
        if size <= self._room:
            self._room -= size
            self._kept[key] = states
        return states


@torch.no_grad()
def compute_answer_states(aspire: AspireLM, batch: Sequence[LabelledAnswers]) -> PrefixStates:
    """The states of one batch, computed now."""
    return aspire.answer_branches(
        [
            [(item.question, item.context, text) for item in items for text in item.texts]
            for items in group_by_passage(batch)
        ]
    )
