"""Stage 1, task-specific tuning: θp learns to answer.

Minimises −log P(y | x; θ, θp) over θp alone, the loss on the tokens of the reference y and its end token.
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
from aspire_trainers.run.distributed import sharded_mean_loss
from aspire_trainers.run.progress import Progress
from aspire_trainers.stages.adapter_trainer import AdapterTrainer, make_adapter, mean_loss


def tune_task(
    aspire: AspireLM,
    train: Sequence[QARecord],
    validation: Sequence[QARecord],
    config: TaskTuningConfig,
    *,
    seed: int,
    checkpoint: Path,
    progress: Progress,
) -> Adapter:
    """Train θp on the records that have a reference or get the refusal, from the last checkpoint where there is one.

    Where the model has a θp, a copy of it is trained.
    """
    train, validation = (_with_target(records, config.refusal) for records in (train, validation))
    start = aspire.task
    task = make_adapter(aspire.lm, config, seed=seed, start=start)
    aspire = replace(aspire, task=task)
    held_out = group_by_context(validation, config.batch_size, seed)

    def targets(batch: Sequence[QARecord]) -> int:
        return sum(len(aspire.answer_ids(record.references[0])) + 1 for record in batch)

    def loss(batch: Sequence[QARecord]) -> Iterator[Tensor]:
        for part in _within(config.token_budget, aspire, batch):
            yield task_loss(aspire, part) * (targets(part) / targets(batch))

    AdapterTrainer(
        adapter=task,
        batches=group_by_context(train, config.batch_size, seed),
        loss=lambda batch: sharded_mean_loss(loss, batch, targets),
        validate=(lambda: mean_loss(loss, held_out)) if held_out else None,
        config=config,
        seed=seed,
        checkpoint=checkpoint,
        progress=progress,
        start_counts=start is not None,
    ).run()
    return task


def _with_target(records: Sequence[QARecord], refusal: str | None) -> list[QARecord]:
    """The records whose target is known: their first reference, or else the refusal, if there is one."""
    if refusal is None:
        return [record for record in records if record.answerable]
    return [
        record if record.answerable else replace(record, references=(refusal,))
        for record in records
    ]


def _within(
    token_budget: int, aspire: AspireLM, batch: Sequence[QARecord]
) -> Iterator[list[QARecord]]:
    """Neighbours in parts that run at most `token_budget` tokens, padding included, but for a single longer record."""
    first = find_first_turns(record.context for record in batch)
    part: list[QARecord] = []
    heads: dict[str | int, int] = {}
    longest = 0
    for i, record in enumerate(batch):
        head, tail = aspire.lengths(record.question, record.context, record.references[0])
        passage = first[record.context] or i
        grown = heads | {passage: max(head, heads.get(passage, 0))}
        tokens = max(grown.values()) * len(grown) + max(longest, tail) * (len(part) + 1)
        if part and tokens > token_budget:
            yield part
            part, grown, longest = [], {passage: head}, 0
        part.append(record)
        heads, longest = grown, max(longest, tail)
    yield part


def task_loss(aspire: AspireLM, batch: Sequence[QARecord]) -> Tensor:
    """Mean cross-entropy of the references' tokens, in nats; the first reference is the target."""
    prompts = aspire.prompt_states([(record.question, record.context) for record in batch])
    _, totals, counts = aspire.answer_states(prompts, [[record.references[0]] for record in batch])
    return -totals.sum() / counts.sum()
