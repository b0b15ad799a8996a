"""The whole training of a judge: from labelled answers of any chain to an evaluator folder.

The work is kept in a folder next to the output, so that the same call continues after a kill.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from aspire_guard.evaluators.evaluator_folder import BaseModelId, Manifest, save_evaluator
from aspire_guard.evaluators.self_evaluator import SelfEvaluator
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.base_model import fingerprint, load_base_model
from aspire_guard.lm.template import PromptTemplate
from aspire_guard.records.columns import NO_COLUMNS, Columns
from aspire_guard.selection.calibration import Calibration
from aspire_guard.selection.calibrators import PlattCalibrator
from aspire_trainers.config import JudgeConfig
from aspire_trainers.data.judged_passages import (
    JudgedPassage,
    group_into_passages,
    split_groups,
)
from aspire_trainers.data.rated_answers import RatedAnswer, read_rated_answers, sample_groups
from aspire_trainers.fitting import FitConfig, fit_to_answers
from aspire_trainers.run.distributed import broadcast_from_main, get_processes
from aspire_trainers.run.progress import Progress
from aspire_trainers.run_folder import is_finished, lock_run, open_work_folder, remove_work
from aspire_trainers.stages.judge_tuning import tune_judge


def train_judge(
    data: Sequence[Path], output: Path, config: JudgeConfig, *, columns: Columns = NO_COLUMNS
) -> None:
    """Train a judge on labelled answers, fit its selection rule to the held-out ones, and write the evaluator folder.

    Args:
        data: files of rated answers.
        output: the folder to write.
        config: the settings.
        columns: the columns that hold the fields of an answer.

    Raises:
        DatasetError: a file is missing or has a bad line.
        InputError: `output` holds something other than this run, or another process works on the same run.
        BaseModelError: the base model can't be found.
    """
    answers: list[RatedAnswer] = []
    for path in data:
        rated = read_rated_answers(path, columns)
        answers += sample_groups(rated, config.limit, seed=config.seed)
    get_processes()  # On a machine with several GPUs, each process chooses one of its own.
    lm = load_base_model(config.model)
    run: dict[str, Any] = {
        "config": config.model_dump(mode="json"),
        "data": _compute_digest(answers),
        "model": fingerprint(lm),
        "start": {},
    }
    if broadcast_from_main(lambda: is_finished(output, run)):
        broadcast_from_main(lambda: remove_work(output, run))
        return
    work = broadcast_from_main(lambda: open_work_folder(output, run))
    with ExitStack() as lock_holder:
        broadcast_from_main(lambda: lock_run(work, lock_holder))
        learned, held_out = split_groups(answers, config.validation_share, seed=config.seed)
        aspire = _tune(AspireLM(lm), learned, held_out, config, work)
        broadcast_from_main(lambda: _save(aspire, held_out, output, data, config, run))
        broadcast_from_main(lambda: remove_work(output, run))


def _tune(
    aspire: AspireLM,
    learned: Sequence[RatedAnswer],
    held_out: Sequence[RatedAnswer],
    config: JudgeConfig,
    work: Path,
) -> AspireLM:
    """Train the judge, and return it on the model in float32."""
    lm = aspire.lm
    aspire = replace(
        aspire.copy_onto(lm.to(getattr(torch, config.dtype))),
        template=PromptTemplate(plain_answers=True),
        correct=config.correct,
        wrong=config.wrong,
    )

    def make_passages(answers: Sequence[RatedAnswer]) -> list[JudgedPassage]:
        return group_into_passages(
            answers,
            count_tokens=lambda text: len(lm.token_ids(text)),
            token_budget=config.token_budget,
            seed=config.seed,
        )

    is_quiet = not get_processes().is_main_process
    with Progress("judge", "steps", Console(stderr=True, quiet=is_quiet)) as progress:
        judge = tune_judge(
            aspire,
            make_passages(learned),
            make_passages(held_out),
            config,
            checkpoint=work / "judge.safetensors",
            progress=progress,
        )
    return judge.copy_onto(lm)


def _save(
    aspire: AspireLM,
    held_out: Sequence[RatedAnswer],
    output: Path,
    data: Sequence[Path],
    config: JudgeConfig,
    run: Mapping[str, Any],
) -> None:
    """Fit the selection rule and the confidence to the held-out answers, and write the evaluator folder."""
    provenance = {
        "date": datetime.now(UTC).date().isoformat(),
        "datasets": [path.name for path in data],
        "data_digest": run["data"],
        "config": run["config"],
        "versions": {name: version(name) for name in ("aspire-guard", "torch", "transformers")},
    }
    manifest = Manifest(
        base_model=BaseModelId.from_model(config.model, aspire.lm),
        template=aspire.template,
        correct=aspire.correct,
        wrong=aspire.wrong,
        alpha=1.0,
        num_beams=1,
        max_new_tokens=1,
        provenance=provenance,
    )
    # Only an answer without a context keeps this confidence, if there are too few of them to fit it.
    p_correct = Calibration(
        calibrator=PlattCalibrator(slope=1.0, intercept=0.0), n=0, date=provenance["date"]
    )
    names = [path.name for path in data]
    fit = FitConfig(target_accuracy=config.target_accuracy, attribution=config.attribution)
    fitted, _ = fit_to_answers(held_out, names, fit, SelfEvaluator(aspire, manifest, p_correct))
    manifest = fitted.manifest.model_copy(update={"provenance": provenance})
    save_evaluator(output, fitted.aspire, manifest, fitted.calibration)


def _compute_digest(answers: Sequence[RatedAnswer]) -> str:
    """Compute a digest (hex) of everything in the answers that training depends on."""
    digest = hashlib.sha256()
    for answer in answers:
        digest.update(repr(answer).encode())
    return digest.hexdigest()
