"""An epoch of stage 3 against prompt tuning of whole sequences, with PEFT and `transformers.Trainer`.

Run: `python benchmarks/self_evaluation_epoch.py [--data squad_train.jsonl]`. The answers are ten beams a question. Ours
is the mean of the three epochs of a run, states and all; the reference is one epoch over a sequence an answer, like
lengths together, with as many virtual tokens (20 beside the LoRA). Prints how many times faster ours is, as
min / median / max.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pairs import in_turn, settings, show
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


def sampled(aspire: AspireLM, records: Sequence[QARecord]) -> list[SampledAnswers]:
    """Ten beams a question under the starter's θp."""
    answers = []
    for batch in group_by_context(records, _BATCH_SIZE, seed=0):
        for record, beams in zip(
            batch, decode_records(aspire, batch, k=_ANSWERS, max_new_tokens=20)[0], strict=True
        ):
            texts = drop_repetitions(beams)
            answers.append(SampledAnswers(record, tuple(texts), tuple(texts.values())))
    return answers


def sequences(aspire: AspireLM, items: Sequence[LabelledAnswers]) -> list[dict[str, list[int]]]:
    """A sequence an answer for the reference: `[x ; ŷ ; z]`, the loss on z alone."""
    rows = []
    for item in items:
        before = aspire.template.render(item.question, item.context)
        for text, right in zip(item.texts, item.is_right, strict=True):
            ids = aspire.lm.token_ids(before + aspire.template.render_answer(text)).tolist()
            word = aspire.lm.token_ids(aspire.correct if right else aspire.wrong).tolist()
            rows.append({"input_ids": ids + word, "labels": [-100] * len(ids) + word})
    return rows


def trainer(
    aspire: AspireLM, rows: list[dict[str, list[int]]], length: int, folder: str
) -> Trainer:
    """The reference: one epoch of prompt tuning."""
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
    reference = Trainer(
        model=get_peft_model(load_base_model("smollm2-135m").model, config),
        args=arguments,
        train_dataset=rows,
        data_collator=DataCollatorForSeq2Seq(aspire.lm.tokenizer),
    )
    reference.remove_callback(PrinterCallback)
    return reference


def main() -> None:
    """Print one line for each kind of θs."""
    told = settings(__doc__, records=4, pairs=3)
    aspire = replace(
        SelfEvaluator.starter().aspire, self_eval=None
    )  # stage 3 would go on from its θs
    answers = sampled(aspire, told.records)
    for name, (kind, wanted) in _KINDS.items():
        config = SelfEvaluationConfig(
            **kind, epochs=_EPOCHS, batch_size=_BATCH_SIZE, answers=_ANSWERS
        )
        batches = label_answers(answers, config, RougeL(0.7), seed=0)
        rows = sequences(aspire, [item for batch in batches for item in batch])
        with tempfile.TemporaryDirectory() as folder:
            reference = trainer(aspire, rows, config.length, folder)

            def ours(batches: Any = batches, config: Any = config, folder: str = folder) -> None:
                checkpoint = Path(folder) / f"{time.perf_counter_ns()}.safetensors"
                progress = Progress("epoch")
                tune_self_evaluation(
                    aspire, batches, [], config, seed=0, checkpoint=checkpoint, progress=progress
                )

            own, other = in_turn(ours, reference.train, told.pairs)
        own = [seconds / _EPOCHS for seconds in own]
        ratios = [b / a for a, b in zip(own, other, strict=True)]
        show(
            f"{name}, {len(rows)} answers to {len(told.records)} questions",
            own,
            other,
            ratios,
            wanted,
        )


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
