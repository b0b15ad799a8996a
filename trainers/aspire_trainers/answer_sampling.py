"""Stage 2, answer sampling: what the tuned model answers to its training questions, right and wrong.

Beam search with k beams, or k draws, under θp; each of the k outputs is graded, with the training threshold γ̂ where
the correctness rule has one. S_c = the first reference and the right outputs, S_w = the wrong ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.utils import gather_object

from aspire_guard.lm.aspire_lm import Answer, AspireLM
from aspire_guard.lm.beam_search import Beams
from aspire_trainers.batches import by_context
from aspire_trainers.config import SamplingConfig
from aspire_trainers.line_log import LineLog
from aspire_trainers.processes import from_main, processes
from aspire_trainers.progress import Progress
from aspire_trainers.record import QARecord

DEFAULT_WRONG_ANSWER = ""


@dataclass(frozen=True)
class SampledAnswers:
    """The answers of one question; beams stand best first.

    Attributes:
        texts: without repetitions.
        log_likelihoods: log f_norm of each, in nats; None where the model that answered reported none.
    """

    record: QARecord
    texts: tuple[str, ...]
    log_likelihoods: tuple[float | None, ...]

    def labelled(self, grades: Sequence[bool], reference: str | None = None) -> tuple[list[str], list[str]]:
        """S_c and S_w of the paper.

        Args:
            grades: whether each of the texts is right.
            reference: stands in front in S_c, if it isn't there already.
        """
        right = [text for text, is_right in zip(self.texts, grades, strict=True) if is_right]
        if reference is not None and reference not in right:
            right.insert(0, reference)
        wrong = [text for text in self.texts if text not in right]
        if not wrong and self.record.answerable:
            wrong.append(DEFAULT_WRONG_ANSWER)
        return right, wrong


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
    batches = by_context(records, config.batch_size, seed)
    log = LineLog(file)
    decoded = from_main(lambda: list(log.values))
    with log if processes().is_main_process else nullcontext():
        progress.start(len(batches), len(decoded))
        while todo := batches[len(decoded) :][: processes().num_processes]:
            with processes().split_between_processes(todo) as share:
                found = gather_object(
                    [[distinct(answers) for answers in _sampled(aspire, batch, config, seed)] for batch in share]
                )
            for answers in found if processes().is_main_process else ():
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
def _sampled(aspire: AspireLM, batch: Sequence[QARecord], config: SamplingConfig, seed: int) -> list[list[Answer]]:
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
    return aspire.decode(prompts, k=k, max_new_tokens=max_new_tokens, early_stopping=True)


def distinct(beams: Sequence[Answer]) -> dict[str, float]:
    """Text → log f_norm; of answers with the same text the first stays, of beams the best."""
    answers: dict[str, float] = {}
    for beam in beams:
        answers.setdefault(beam.text, beam.log_likelihood)
    return answers
