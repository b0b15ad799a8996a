"""Stage 2, answer sampling: the tuned model's right and wrong answers to its training questions.

Beam search with k beams under θp, or k draws. Each of the k outputs is then graded, with the training threshold γ̂ if
the correctness rule has a threshold. S_c is the first reference and the right outputs, and S_w is the wrong outputs.
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

# The answers to each record of a batch: text → log f_norm.
_BatchAnswers = list[dict[str, float]]


def sample_answers(
    aspire: AspireLM,
    records: Sequence[QARecord],
    config: SamplingConfig,
    *,
    seed: int,
    file: str | Path,
    progress: Progress,
) -> list[SampledAnswers]:
    """Answer every record, and keep finished batches in `file`. A later call continues after the last complete batch.

    Each of several processes answers a batch at a time.
    """
    batches = group_by_context(records, config.batch_size, seed)
    processes = get_processes()
    log = AppendOnlyJsonl(file)
    finished: list[_BatchAnswers] = broadcast_from_main(lambda: list(log.values))
    with log if processes.is_main_process else nullcontext():
        progress.start(len(batches), len(finished))
        while len(finished) < len(batches):
            first = len(finished)
            next_batches = batches[first : first + processes.num_processes]
            with processes.split_between_processes(next_batches) as share:
                answered = [_answer_batch(aspire, batch, config, seed) for batch in share]
            gathered = gather_object(answered)
            if processes.is_main_process:
                for answers in gathered:
                    log.append(answers)
            finished += gathered
            progress.advance(by=len(gathered))
    return _restore_order(records, batches, finished)


@torch.inference_mode()
def _answer_batch(
    aspire: AspireLM, batch: Sequence[QARecord], config: SamplingConfig, seed: int
) -> _BatchAnswers:
    if config.method == "beam":
        answers, _ = decode_records(
            aspire,
            batch,
            k=config.k,
            max_new_tokens=config.max_new_tokens,
        )
    else:
        answers = aspire.sample(
            aspire.prompt_states([(record.question, record.context) for record in batch]),
            n=config.k,
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            seeds=[f"{seed}/{record.id}" for record in batch],
        )
    return [drop_repetitions(answers_to_record) for answers_to_record in answers]


@torch.inference_mode()
def decode_records(
    aspire: AspireLM, records: Sequence[QARecord], *, k: int, max_new_tokens: int
) -> tuple[list[list[Answer]], Beams]:
    """Return the `k` best answers to each record, and their states."""
    prompts = aspire.prompt_states([(record.question, record.context) for record in records])
    return aspire.decode(prompts, k=k, max_new_tokens=max_new_tokens)


def _restore_order(
    records: Sequence[QARecord],
    batches: Sequence[Sequence[QARecord]],
    finished: Sequence[_BatchAnswers],
) -> list[SampledAnswers]:
    """Pair the batches with their answers, in the order of `records`."""
    sampled = []
    for batch, answers_of_batch in zip(batches, finished, strict=True):
        for record, likelihoods in zip(batch, answers_of_batch, strict=True):
            texts = tuple(likelihoods)
            sampled.append(SampledAnswers(record, texts, tuple(likelihoods.values())))
    positions = {record.id: position for position, record in enumerate(records)}
    return sorted(sampled, key=lambda answers: positions[answers.record.id])
