"""Stage 2, answer sampling: what the tuned model answers to its training questions, right and wrong.

Beam search with k beams, or k draws, under θp; each of the k outputs is graded, with the training threshold γ̂ where
the correctness rule has one. S_c = the first reference and the right outputs, S_w = the wrong ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate.utils import gather_object

from aspire_guard.lm.aspire_lm import Answer, AspireLM
from aspire_guard.lm.beam_search import Beams
from aspire_trainers.config import SamplingConfig
from aspire_trainers.data.batching import group_by_context
from aspire_trainers.data.sampled_answers import SampledAnswers, drop_repetitions
from aspire_trainers.record import QARecord
from aspire_trainers.run.append_log import AppendOnlyJsonl
from aspire_trainers.run.distributed import broadcast_from_main, get_processes
from aspire_trainers.run.progress import Progress


def sample_answers(
    aspire: AspireLM,
    records: Sequence[QARecord],
    config: SamplingConfig,
    *,
    seed: int,
    file: Path,
    progress: Progress,
) -> list[SampledAnswers]:
    """Decode every record, keeping finished batches in `file`; a later call goes on after the last whole one.

    Several processes decode a batch each at a time.
    """
    batches = group_by_context(records, config.batch_size, seed)
    log = AppendOnlyJsonl(file)
    decoded = broadcast_from_main(lambda: list(log.values))
    with log if get_processes().is_main_process else nullcontext():
        progress.start(len(batches), len(decoded))
        while todo := batches[len(decoded) :][: get_processes().num_processes]:
            with get_processes().split_between_processes(todo) as share:
                found = gather_object(
                    [
                        [
                            drop_repetitions(answers)
                            for answers in _sampled(aspire, batch, config, seed)
                        ]
                        for batch in share
                    ]
                )
            for answers in found if get_processes().is_main_process else ():
                log.append(answers)
            decoded += found
            progress.advance(by=len(found))
    sampled = (
        SampledAnswers(record, tuple(answers), tuple(answers.values()))
        for batch, rows in zip(batches, decoded, strict=True)
        for record, answers in zip(batch, rows, strict=True)
    )
    place = {record.id: i for i, record in enumerate(records)}
    return sorted(sampled, key=lambda answers: place[answers.record.id])


@torch.inference_mode()
def _sampled(
    aspire: AspireLM, batch: Sequence[QARecord], config: SamplingConfig, seed: int
) -> list[list[Answer]]:
    if config.method == "beam":
        return decode_records(aspire, batch, k=config.k, max_new_tokens=config.max_new_tokens)[0]
    return aspire.sample(
        aspire.prompt_states([(record.question, record.context) for record in batch]),
        n=config.k,
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        seeds=[f"{seed}/{record.id}" for record in batch],
    )


@torch.inference_mode()
def decode_records(
    aspire: AspireLM, records: Sequence[QARecord], *, k: int, max_new_tokens: int
) -> tuple[list[list[Answer]], Beams]:
    """The `k` best answers to each record, and their states."""
    prompts = aspire.prompt_states([(record.question, record.context) for record in records])
    return aspire.decode(prompts, k=k, max_new_tokens=max_new_tokens)
