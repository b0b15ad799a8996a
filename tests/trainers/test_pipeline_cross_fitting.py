"""Cross-fitting: training answers come from a θp that was fitted on other passages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.base_model import load_base_model
from aspire_trainers.config import (
    SamplingConfig,
    SelfEvaluationConfig,
    TaskTuningConfig,
    TrainingConfig,
)
from aspire_trainers.data.batching import split_into_folds
from aspire_trainers.data.training_data import TrainingData
from aspire_trainers.pipeline import train_evaluator
from aspire_trainers.record import QARecord
from aspire_trainers.run.progress import Progress
from aspire_trainers.stages.task_tuning import tune_task


def _make_records(first: int, last: int) -> tuple[QARecord, ...]:
    return tuple(
        QARecord(f"{i}-{j}", f"Which {j}?", f"Passage {i}.", (f"no. {i}",))
        for i in range(first, last)
        for j in range(2)
    )


DATA = TrainingData(("tiny.jsonl",), _make_records(0, 5), _make_records(5, 7))


def _make_config(base: Path, folds: int) -> TrainingConfig:
    fit: dict[str, Any] = {
        "length": 3,
        "epochs": 2,
        "batch_size": 2,
        "validate_every": 5,
        "checkpoint_every": 1,
    }
    return TrainingConfig(
        model=str(base),
        task=TaskTuningConfig(text="Answer", **fit),
        sampling=SamplingConfig(k=3, max_new_tokens=5, batch_size=2, folds=folds),
        self_evaluation=SelfEvaluationConfig(text="Right?", **fit),
        num_beams=2,
    )


def _load_weights(file: Path) -> dict[str, list[float]]:
    return {name: value.tolist() for name, value in load_file(file).items()}


def test_a_fold_is_answered_under_a_task_prompt_that_has_not_seen_it(
    base: Path, tmp_path: Path, train_until: Callable[..., None]
) -> None:
    """A fold's θp is the one that training on the other folds alone gives."""
    config, work = _make_config(base, folds=2), tmp_path / ".out.work"
    train_until(work / "self_eval.safetensors", config, DATA, tmp_path / "out")
    folds = split_into_folds(DATA.train, 2, config.seed)
    for i, others in ((1, folds[1]), (2, folds[0])):
        tune_task(
            AspireLM(load_base_model(str(base))),
            others,
            DATA.validation,
            config.task,
            seed=config.seed,
            checkpoint=tmp_path / f"alone-{i}.safetensors",
            progress=Progress("test"),
        )
        assert _load_weights(work / f"task-without-{i}.safetensors") == _load_weights(
            tmp_path / f"alone-{i}.safetensors"
        )


def test_a_run_killed_in_any_fold_ends_with_the_same_evaluator(
    base: Path, tmp_path: Path, train_until: Callable[..., None]
) -> None:
    """The run is killed while a fold is tuned and sampled. θp is the same as without folds, and θs is another one."""
    config, output = _make_config(base, folds=2), tmp_path / "out"
    for left_behind in ("task-without-1.safetensors", "answers-train-2.jsonl"):
        train_until(tmp_path / ".out.work" / left_behind, config, DATA, output)
    train_evaluator(config, DATA, output)
    through = train_evaluator(config, DATA, tmp_path / "through")
    plain = train_evaluator(_make_config(base, folds=1), DATA, tmp_path / "plain")
    task, self_eval = "task/adapter_model.safetensors", "self_eval/adapter_model.safetensors"
    for name in (task, self_eval, "calibration.json"):
        assert (output / name).read_bytes() == (through / name).read_bytes()
    assert (output / task).read_bytes() == (plain / task).read_bytes()
    assert (output / self_eval).read_bytes() != (plain / self_eval).read_bytes()
