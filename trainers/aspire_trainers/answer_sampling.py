"""Stage 2, answer sampling: what the tuned model answers to its training questions, right and wrong.

Beam search with k beams under θp; each of the k outputs is graded, with the training threshold γ̂ where the
correctness rule has one. S_c = the first reference and the right outputs, S_w = the wrong ones.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import torch

from aspire_guard.lm.aspire_lm import Answer, AspireLM
from aspire_guard.lm.beam_search import Beams
from aspire_trainers.batches import by_context
from aspire_trainers.config import SamplingConfig
from aspire_trainers.progress import Progress
from aspire_trainers.record import QARecord

DEFAULT_WRONG_ANSWER = ""


@dataclass(frozen=True)
class SampledAnswers:
    """The answers of one question, best first.

    Attributes:
        texts: without repetitions.
        log_likelihoods: log f_norm of each, in nats.
    """

    record: QARecord
    texts: tuple[str, ...]
    log_likelihoods: tuple[float, ...]

    def labelled(self, grades: Sequence[bool], reference: str | None = None) -> tuple[list[str], list[str]]:
        """S_c and S_w of the paper.

        Args:
            grades: whether each of the texts is right.
            reference: stands in front in S_c, if it isn't there already.
        """
        right = [text for text, is_right in zip(self.texts, grades, strict=True) if is_right]
        wrong = [text for text in self.texts if text not in right]
        if reference is not None and reference not in right:
            right.insert(0, reference)
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
    """Decode every record, keeping finished batches in `file`; a later call goes on after the last whole one."""
    batches = by_context(records, config.batch_size, seed)
    done = list(_finished_batches(file))
    progress.start(len(batches), len(done))
    with _reopen(file, done) as stream:
        for batch in batches[len(done) :]:
            answers = decode_records(aspire, batch, k=config.k, max_new_tokens=config.max_new_tokens)[0]
            done.append([distinct(beams) for beams in answers])
            stream.write(json.dumps(done[-1], ensure_ascii=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
            progress.advance()
    sampled = (
        SampledAnswers(record, tuple(answers), tuple(answers.values()))
        for batch, rows in zip(batches, done, strict=True)
        for record, answers in zip(batch, rows, strict=True)
    )
    place = {record.id: i for i, record in enumerate(records)}
    return sorted(sampled, key=lambda answers: place[answers.record.id])


@torch.inference_mode()
def decode_records(
    aspire: AspireLM, records: Sequence[QARecord], *, k: int, max_new_tokens: int
) -> tuple[list[list[Answer]], Beams]:
    """The `k` best answers to each record, and their states."""
    prompts = aspire.prompt_states([(record.question, record.context) for record in records])
    return aspire.decode(prompts, k=k, max_new_tokens=max_new_tokens, early_stopping=True)


def distinct(beams: Sequence[Answer]) -> dict[str, float]:
    """Text → log f_norm; of beams that decode to the same text the best stays."""
    answers: dict[str, float] = {}
    for beam in beams:
        answers.setdefault(beam.text, beam.log_likelihood)
    return answers


def _finished_batches(file: Path) -> Iterator[list[dict[str, float]]]:
    """What an earlier run wrote; a line that was cut off by a kill does not count."""
    if not file.exists():
        return
    for line in file.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            return
        yield json.loads(line)


def _reopen(file: Path, done: Sequence[list[dict[str, float]]]) -> TextIO:
    """Open `file` to append after the batches that count."""
    stream = file.open("a", encoding="utf-8")
    whole = sum(map(len, file.read_bytes().splitlines(keepends=True)[: len(done)]))
    stream.truncate(whole)
    return stream
