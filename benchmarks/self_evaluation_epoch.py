"""An epoch of stage 3 against prompt tuning of whole sequences, with PEFT and `transformers.Trainer`.

Run: `python benchmarks/self_evaluation_epoch.py [--data squad_train.jsonl]`. The answers are ten beams a question. Our
time is the mean of the three epochs of a run, including the computation of the states. The reference is one epoch over
a sequence for each answer, grouped by length, with the same number of virtual tokens (20 in place of the LoRA). Prints
how many times faster our epoch is, as min / median / max.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from pairs import Settings, divide, parse_settings, print_comparison, time_in_turn
from peft import PromptTuningConfig, TaskType, get_peft_model
from transformers import DataCollatorForSeq2Seq, PrinterCallback, Trainer, TrainingArguments

from aspire_guard import SelfEvaluator
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.base_model import load_base_model
from aspire_trainers.config import SelfEvaluationConfig
from aspire_trainers.correctness import RougeL
from aspire_trainers.data.batching import group_by_context
from aspire_trainers.data.sampled_answers import SampledAnswers, drop_repetitions
from aspire_trainers.record import QARecord
from aspire_trainers.run.progress import Progress
from aspire_trainers.stages.answer_sampling import decode_records
from aspire_trainers.stages.labelling import LabelledAnswers, label_answers
from aspire_trainers.stages.self_evaluation import tune_self_evaluation

_ANSWERS, _BATCH_SIZE, _EPOCHS = 10, 8, 3
_KINDS: dict[str, tuple[dict[str, Any], str]] = {
    "θs of 50 tokens": ({"method": "soft_prompt", "length": 50}, "at least 3"),
    "θs of 20 tokens": ({"method": "soft_prompt", "length": 20}, "at least 5"),
    "θs as a LoRA": ({"method": "lora"}, "at least 5"),
}


def sample_answers(aspire: AspireLM, records: Sequence[QARecord]) -> list[SampledAnswers]:
    """Decode ten beams per question under the starter's θp."""
    answers = []
    for batch in group_by_context(records, _BATCH_SIZE, seed=0):
        beams = decode_records(aspire, batch, k=_ANSWERS, max_new_tokens=20)[0]
        for record, record_beams in zip(batch, beams, strict=True):
            texts = drop_repetitions(record_beams)
            answers.append(SampledAnswers(record, tuple(texts), tuple(texts.values())))
    return answers


def make_sequences(
    aspire: AspireLM, batches: Sequence[Sequence[LabelledAnswers]]
) -> list[dict[str, list[int]]]:
    """Return a sequence `[x ; ŷ ; z]` for each answer, with the loss on z alone, for the reference."""
    rows = []
    for item in chain.from_iterable(batches):
        prompt = aspire.template.render(item.question, item.context)
        for text, is_right in zip(item.texts, item.is_right, strict=True):
            ids = aspire.lm.token_ids(prompt + aspire.template.render_answer(text)).tolist()
            verdict = aspire.correct if is_right else aspire.wrong
            verdict_ids = aspire.lm.token_ids(verdict).tolist()
            labels = [-100] * len(ids) + verdict_ids
            rows.append({"input_ids": ids + verdict_ids, "labels": labels})
    return rows


def make_reference(
    aspire: AspireLM, rows: list[dict[str, list[int]]], length: int, folder: str
) -> Trainer:
    """Make the trainer of the reference: one epoch of prompt tuning."""
    config = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=length)
    arguments = TrainingArguments(
        output_dir=folder,
        num_train_epochs=1,
        per_device_train_batch_size=_BATCH_SIZE,
        train_sampling_strategy="group_by_length",
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=get_peft_model(load_base_model("smollm2-135m").model, config),
        args=arguments,
        train_dataset=rows,
        data_collator=DataCollatorForSeq2Seq(aspire.lm.tokenizer),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def compare(
    aspire: AspireLM,
    answers: Sequence[SampledAnswers],
    config: SelfEvaluationConfig,
    settings: Settings,
    name: str,
    wanted: str,
) -> None:
    """Train a θs of one kind with both, and print a line."""
    batches = label_answers(answers, config, RougeL(0.7), seed=0)
    rows = make_sequences(aspire, batches)
    with tempfile.TemporaryDirectory() as folder:
        reference = make_reference(aspire, rows, config.length, folder)

        def train() -> None:
            # With a new checkpoint, training can't resume the run before.
            checkpoint = Path(folder) / f"{time.perf_counter_ns()}.safetensors"
            progress = Progress("epoch")
            tune_self_evaluation(
                aspire, batches, [], config, seed=0, checkpoint=checkpoint, progress=progress
            )

        run_seconds, reference_seconds = time_in_turn(train, reference.train, settings.pairs)
    epoch_seconds = [seconds / _EPOCHS for seconds in run_seconds]
    speedups = divide(reference_seconds, epoch_seconds)
    name = f"{name}, {len(rows)} answers to {len(settings.records)} questions"
    print_comparison(name, epoch_seconds, reference_seconds, speedups, wanted)


def main() -> None:
    """Print a line for each kind of θs."""
    settings = parse_settings(__doc__, records=4, pairs=3)
    # Stage 3 would continue the starter's θs, so θs is removed.
    aspire = replace(SelfEvaluator.starter().aspire, self_eval=None)
    answers = sample_answers(aspire, settings.records)
    for name, (kind, wanted) in _KINDS.items():
        config = SelfEvaluationConfig(
            **kind, epochs=_EPOCHS, batch_size=_BATCH_SIZE, answers=_ANSWERS
        )
        compare(aspire, answers, config, settings, name, wanted)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
