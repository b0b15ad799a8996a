"""Stage 1, task-specific tuning: θp learns to answer.

It minimises −log P(y | x; θ, θp) over θp alone: the loss on the tokens of the reference y and its end token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from aspire_guard.lm.adapter import Adapter
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.shared_prefixes import find_first_turns
from aspire_trainers.config import TaskTuningConfig
from aspire_trainers.data.batching import group_by_context
from aspire_trainers.record import QARecord
from aspire_trainers.run.distributed import shard_mean_loss
from aspire_trainers.run.progress import Progress
from aspire_trainers.stages.adapter_trainer import AdapterTrainer, compute_mean_loss, make_adapter


def tune_task(
    aspire: AspireLM,
    train: Sequence[QARecord],
    validation: Sequence[QARecord],
    config: TaskTuningConfig,
    *,
    seed: int,
    checkpoint: str | Path,
    progress: Progress,
) -> Adapter:
    """Train θp on the records that have a reference or get the refusal, from the last checkpoint if there is one.

    If the model has a θp, a copy of it is trained.
    """
    train = _set_targets(train, config.refusal)
    validation = _set_targets(validation, config.refusal)
    start = aspire.task
    task = make_adapter(aspire.lm, config, seed=seed, start=start)
    aspire = replace(aspire, task=task)
    held_out = group_by_context(validation, config.batch_size, seed)

    def count_targets(batch: Sequence[QARecord]) -> int:
        targets = [aspire.answer_ids(record.references[0]) for record in batch]
        return sum(len(ids) + 1 for ids in targets)  # with the end token

    def loss(batch: Sequence[QARecord]) -> Iterator[Tensor]:
        for part in _split_by_token_budget(config.token_budget, aspire, batch):
            yield task_loss(aspire, part) * (count_targets(part) / count_targets(batch))

    AdapterTrainer(
        adapter=task,
        batches=group_by_context(train, config.batch_size, seed),
        loss=lambda batch: shard_mean_loss(loss, batch, count_targets),
        validate=(lambda: compute_mean_loss(loss, held_out)) if held_out else None,
        config=config,
        seed=seed,
        checkpoint=checkpoint,
        progress=progress,
        start_counts=start is not None,
    ).run()
    return task


def _set_targets(records: Sequence[QARecord], refusal: str | None) -> list[QARecord]:
    """Return the records that have a target: their first reference, or else the refusal if there is one."""
    if refusal is None:
        return [record for record in records if record.answerable]
    return [
        record if record.answerable else replace(record, references=(refusal,))
        for record in records
        if not record.is_open
    ]


def _split_by_token_budget(
    token_budget: int, aspire: AspireLM, batch: Sequence[QARecord]
) -> Iterator[list[QARecord]]:
    """Split neighbours into parts whose forward passes run at most `token_budget` tokens, padding included.

    A single longer record is a part by itself.
    """
    first_turns = find_first_turns(record.context for record in batch)
    part: list[QARecord] = []
    # A passage runs once, padded to the longest passage. Each question and answer is padded to the longest.
    passage_lengths: dict[str | int, int] = {}
    longest_tail = 0
    for number, record in enumerate(batch):
        head, tail = aspire.lengths(record.question, record.context, record.references[0])
        passage = first_turns[record.context] or number
        longest_head = max(head, passage_lengths.get(passage, 0))
        extended_lengths = passage_lengths | {passage: longest_head}
        passage_tokens = max(extended_lengths.values()) * len(extended_lengths)
        tail_tokens = max(longest_tail, tail) * (len(part) + 1)
        if part and passage_tokens + tail_tokens > token_budget:
            yield part
            part = []
            extended_lengths = {passage: head}
            longest_tail = 0
        part.append(record)
        passage_lengths = extended_lengths
        longest_tail = max(longest_tail, tail)
    yield part


def task_loss(aspire: AspireLM, batch: Sequence[QARecord]) -> Tensor:
    """Return the mean cross-entropy of the tokens of each record's first reference, in nats."""
    prompts = aspire.prompt_states([(record.question, record.context) for record in batch])
    targets = [[record.references[0]] for record in batch]
    # (batch, 1) summed log-probabilities, and (batch, 1) numbers of tokens
    _, totals, counts = aspire.answer_states(prompts, targets)
    return -totals.sum() / counts.sum()
