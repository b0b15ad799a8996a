"""The unfinished work of a run: settings of stages that have begun stay, and the others may still change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aspire_guard.errors import InputError
from aspire_trainers.config import SamplingConfig, TrainingConfig
from aspire_trainers.data.training_data import TrainingData
from aspire_trainers.pipeline import train_evaluator
from aspire_trainers.record import QARecord

RECORDS = tuple(
    QARecord(str(number), "Which?", f"Passage {number}.", (f"no. {number}",)) for number in range(8)
)
DATA = TrainingData(("tiny.jsonl",), RECORDS[:6], RECORDS[6:])
THETA_S = "self_eval/adapter_model.safetensors"


def _make_config(base: Path, **changes: Any) -> TrainingConfig:
    fit = {"epochs": 3, "batch_size": 2, "checkpoint_every": 1}
    config = TrainingConfig.model_validate(
        {
            "model": str(base),
            "task": {"text": "Answer", "length": 3, **fit},
            "sampling": {"k": 3, "max_new_tokens": 5, "batch_size": 2},
            "self_evaluation": {"rank": 2, **fit},
            "num_beams": 2,
        }
    )
    for name, value in changes.items():
        if isinstance(value, dict):
            value = getattr(config, name).model_copy(update=value)
        config = config.model_copy(update={name: value})
    return config


def test_a_stage_that_has_not_begun_may_get_other_settings(
    base: Path, tmp_path: Path, train_until: Callable[..., None]
) -> None:
    """After a kill in stage 2, a new rank for θs ends with the evaluator that a run with this rank makes."""
    changed = _make_config(base, self_evaluation={"rank": 3}, target_accuracy=0.6, num_beams=3)
    expected = train_evaluator(changed, DATA, tmp_path / "whole")
    work = tmp_path / ".out.work"
    train_until(work / "answers-train.jsonl", _make_config(base), DATA, tmp_path / "out")
    found = train_evaluator(changed, DATA, tmp_path / "out")
    for name in ("task/adapter_model.safetensors", THETA_S, "calibration.json"):
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name
    assert not work.exists()


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"task": {"learning_rate": 0.5}}, r"task\.learning_rate 0\.5 instead of 0\.01"),
        ({"sampling": {"k": 4}, "alpha": 0.5}, r"sampling\.k 4 instead of 3"),
        ({"seed": 7}, "seed 7 instead of 0"),
    ],
    ids=["stage 1", "stage 2", "all stages"],
)
def test_a_stage_that_has_begun_keeps_its_settings(
    changes: dict[str, Any],
    found: str,
    base: Path,
    tmp_path: Path,
    train_until: Callable[..., None],
) -> None:
    """The error names each setting that differs, and the work stays."""
    answers = tmp_path / ".out.work" / "answers-train.jsonl"
    train_until(answers, _make_config(base), DATA, tmp_path / "out")
    with pytest.raises(InputError, match=rf"found others \({found}\); repeat that run's command"):
        train_evaluator(_make_config(base, **changes), DATA, tmp_path / "out")
    assert answers.stat().st_size
    run = (tmp_path / ".out.work" / "run.json").read_text("utf-8")
    assert '"seed": 0' in run


def test_before_the_first_stage_every_setting_may_change(base: Path, tmp_path: Path) -> None:
    """A run that was refused before it trained leaves nothing that depends on its settings."""
    wrong = _make_config(base, task={"text": ""})
    with pytest.raises(InputError, match=r"expected a text with a token in \[task\], found ''"):
        train_evaluator(wrong, DATA, tmp_path / "out")
    right = _make_config(base, seed=3, sampling=SamplingConfig(k=2, max_new_tokens=3))
    assert (train_evaluator(right, DATA, tmp_path / "out") / THETA_S).exists()
