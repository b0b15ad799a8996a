"""The trajectory of the three stages on a tiny model. `test_distributed.py` runs it in one process and in two."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from aspire_guard.lm.adapter import Adapter
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.testing import tiny_lm
from aspire_trainers.config import SamplingConfig, SelfEvaluationConfig, TaskTuningConfig
from aspire_trainers.correctness import RougeL
from aspire_trainers.record import QARecord
from aspire_trainers.run.distributed import get_processes
from aspire_trainers.run.progress import Progress
from aspire_trainers.stages.answer_sampling import sample_answers
from aspire_trainers.stages.labelling import label_answers
from aspire_trainers.stages.self_evaluation import tune_self_evaluation
from aspire_trainers.stages.task_tuning import tune_task

FIT: dict[str, Any] = {
    "length": 3,
    "rank": 2,
    "epochs": 3,
    "batch_size": 3,
    "validate_every": 2,
    "checkpoint_every": 2,
}
# Batches of three questions, of one or two passages, and one of a single question: a process then has no share.
RECORDS = [
    QARecord(
        f"{passage}-{i}", f"Which {i}?", f"Passage number {passage}.", (f"no. {passage}" + i * "!",)
    )
    for passage, questions in enumerate((3, 2, 1, 3, 1))
    for i in range(questions)
]


class Recorder(Progress):
    """A progress display that keeps the losses."""

    def __init__(self) -> None:
        super().__init__("test")
        self.losses: list[float | None] = []
        self.held_out: list[float] = []

    def advance(self, loss: float | None = None, by: int = 1, note: str = "") -> None:
        self.losses.append(loss)

    def note_validation(self, loss: float, best: float) -> None:
        self.held_out.append(loss)


def train_all_stages(folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield the sampled answers, and for each stage and method the losses, held-out losses and final weights."""
    aspire = AspireLM(tiny_lm())
    answers = sample_answers(
        aspire,
        RECORDS,
        SamplingConfig(k=3, max_new_tokens=5, batch_size=3),
        seed=0,
        file=folder / "answers.jsonl",
        progress=Recorder(),
    )
    yield "answers", [(row.texts, row.log_likelihoods) for row in answers]
    for method in ("soft_prompt", "lora"):
        name, progress = f"task-{method}", Recorder()
        task = tune_task(
            replace(aspire, task=None),
            RECORDS,
            RECORDS[:4],
            TaskTuningConfig.model_validate({"method": method, "text": "Answer", **FIT}),
            seed=0,
            checkpoint=folder / f"{name}.safetensors",
            progress=progress,
        )
        yield name, _describe_trajectory(task, progress)
        name, progress = f"self_eval-{method}", Recorder()
        config = SelfEvaluationConfig.model_validate({"method": method, "text": "Right?", **FIT})
        labelled = label_answers(answers, config, RougeL(0.9), seed=0)
        self_eval = tune_self_evaluation(
            replace(aspire, task=task.requires_grad_(False), self_eval=None),
            labelled,
            labelled[:2],
            config,
            seed=0,
            checkpoint=folder / f"{name}.safetensors",
            progress=progress,
        )
        yield name, _describe_trajectory(self_eval, progress)


def _describe_trajectory(adapter: Adapter, progress: Recorder) -> dict[str, Any]:
    weights = {
        name: weight.detach().flatten().tolist() for name, weight in adapter.named_parameters()
    }
    return {"losses": progress.losses, "held_out": progress.held_out, "weights": weights}


if __name__ == "__main__":
    output = Path(sys.argv[1])
    found = dict(train_all_stages(output))
    name = f"{get_processes().process_index}-of-{get_processes().num_processes}.json"
    (output / name).write_text(json.dumps(found), encoding="utf-8")
