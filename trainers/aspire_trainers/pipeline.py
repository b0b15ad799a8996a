"""The three stages one after another: from QA records to an evaluator folder.

Every stage leaves what it has done in a work folder beside the output; the same call, made
again after a kill at any moment, goes on from there and ends with the same weights.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from aspire_guard.errors import InputError
from aspire_guard.evaluators.folder import MANIFEST, BaseModelId, Manifest, read_manifest, save_evaluator
from aspire_guard.evaluators.self_evaluator import selection_score
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.base_model import fingerprint, load_base_model
from aspire_guard.selection.calibration import Calibration, fit_calibration
from aspire_guard.selection.metrics import auroc
from aspire_trainers.answer_sampling import SampledAnswers, sample_answers
from aspire_trainers.batches import split_by_context, take
from aspire_trainers.config import TrainingConfig
from aspire_trainers.correctness import correctness_of
from aspire_trainers.dataset import load_dataset
from aspire_trainers.evaluate import JudgedAnswer, answer_and_judge
from aspire_trainers.labelled_answers import label_answers
from aspire_trainers.persuasion import with_twins
from aspire_trainers.progress import Progress
from aspire_trainers.record import QARecord
from aspire_trainers.self_evaluation import tune_self_evaluation
from aspire_trainers.task_tuning import tune_task

_PAPER_ALPHA = 0.25
_ALPHAS = [step / 20 for step in range(21)]


@dataclass(frozen=True)
class TrainingData:
    """What a run learns from.

    Attributes:
        sources: the names of the datasets, for the evaluator's provenance.
        train: records of stages 1 to 3.
        validation: records to stop early, to choose α and to calibrate; their contexts are not in `train`.
    """

    sources: tuple[str, ...]
    train: tuple[QARecord, ...]
    validation: tuple[QARecord, ...]

    @classmethod
    def load(cls, train: Sequence[str], validation: Sequence[str], config: TrainingConfig) -> TrainingData:
        """Read datasets (paths, or names such as `handbook:train`) and set validation records aside.

        Raises:
            DatasetError: a file is missing or holds a bad line.
            InputError: no record has a reference to learn from.
        """
        records = [record for name in dict.fromkeys(train) for record in take(_named(name), config.limit, config.seed)]
        kept, aside = split_by_context(records, config.validation_share, config.seed)
        if not any(record.answerable for record in kept):
            raise InputError(f"expected training records with an answer, found none in {', '.join(train)}; add some")
        aside += [record for name in dict.fromkeys(validation) for record in _named(name)]
        sources = [Path(name).name for name in (*train, *validation)]
        return cls(tuple(sources), tuple(kept), tuple(aside))

    def digest(self) -> str:
        """Tells this data from any other (hex)."""
        rows = [(r.id, r.question, r.context, r.answers) for r in (*self.train, *self.validation)]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def train_evaluator(config: TrainingConfig, data: TrainingData, output: Path) -> Path:
    """Run the three stages, choose α, calibrate, and write the evaluator folder.

    Returns:
        `output`.

    Raises:
        BaseModelError: the base model is not to be found.
        InputError: `output` holds something else than this run.
    """
    correctness = correctness_of(config.correctness)
    lm = load_base_model(config.model)
    run: dict[str, Any] = {
        "config": config.model_dump(mode="json"),
        "data": data.digest(),
        "model": fingerprint(lm),
    }
    if _is_finished(output, run):
        return output
    work = _open_work_folder(output, run)
    aspire = _tune(AspireLM(lm.to(getattr(torch, config.dtype))), config, data, work).on(lm)
    with Progress("α and calibration", "answers") as progress:
        judged = answer_and_judge(
            aspire,
            data.validation,
            correctness,
            num_beams=config.num_beams,
            max_new_tokens=config.sampling.max_new_tokens,
            progress=progress,
        )
    alpha, calibration = choose_alpha(judged, config.target_accuracy)
    manifest = Manifest(
        base_model=BaseModelId(name=config.model, fingerprint=run["model"]),
        template=aspire.template,
        correct=aspire.correct,
        wrong=aspire.wrong,
        alpha=alpha,
        num_beams=config.num_beams,
        max_new_tokens=config.sampling.max_new_tokens,
        correctness=config.correctness,
        provenance=_provenance(run, data),
    )
    save_evaluator(output, aspire, manifest, calibration)
    shutil.rmtree(work)
    return output


def choose_alpha(judged: Sequence[JudgedAnswer], target_accuracy: float) -> tuple[float, Calibration]:
    """The α of best AUROC on the judged answers (the paper's 0.25 where it is undefined), and its calibration."""
    correct = [answer.correct for answer in judged]
    scores = {
        alpha: [selection_score(a.log_likelihood, a.log_p_correct, alpha) for a in judged]
        for alpha in (_PAPER_ALPHA, *_ALPHAS)
    }
    best = max(scores, key=lambda alpha: auroc(scores[alpha], correct)) if len(set(correct)) == 2 else _PAPER_ALPHA
    today = datetime.now(UTC).date().isoformat()
    return best, fit_calibration(scores[best], correct, target_accuracy=target_accuracy, date=today)


def _tune(aspire: AspireLM, config: TrainingConfig, data: TrainingData, work: Path) -> AspireLM:
    seed = config.seed
    if config.task.method != "none":
        with Progress("1/3 task tuning") as progress:
            task = tune_task(
                aspire,
                data.train,
                data.validation,
                config.task,
                seed=seed,
                checkpoint=work / "task.safetensors",
                progress=progress,
            )
        aspire = replace(aspire, task=task.requires_grad_(False))
    labels = correctness_of(config.correctness.at(config.sampling.threshold))
    batches = {}
    for name, records in (("train", data.train), ("validation", data.validation)):
        with Progress(f"2/3 answer sampling ({name})", "batches") as progress:
            sampled: list[SampledAnswers] = sample_answers(
                aspire, records, config.sampling, seed=seed, file=work / f"answers-{name}.jsonl", progress=progress
            )
        batches[name] = label_answers(sampled, config.self_evaluation, labels, seed=seed, refusal=config.task.refusal)
    with Progress("3/3 self-evaluation") as progress:
        self_eval = tune_self_evaluation(
            aspire,
            with_twins(batches["train"], config.self_evaluation.persuasion, seed=seed),
            batches["validation"],
            config.self_evaluation,
            seed=seed,
            checkpoint=work / "self_eval.safetensors",
            progress=progress,
        )
    return replace(aspire, self_eval=self_eval.requires_grad_(False))


def _named(name: str) -> list[QARecord]:
    """The records of a dataset, their ids made unique among several datasets."""
    return [replace(record, id=f"{Path(name).name}/{record.id}") for record in load_dataset(name)]


def _provenance(run: dict[str, Any], data: TrainingData) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "datasets": list(data.sources),
        "train_records": len(data.train),
        "validation_records": len(data.validation),
        "data_digest": run["data"],
        "config": run["config"],
        "versions": {name: version(name) for name in ("aspire-guard", "torch", "transformers", "peft")},
    }


def _is_finished(output: Path, run: dict[str, Any]) -> bool:
    if not (output / MANIFEST).exists():
        return False
    provenance = read_manifest(output).provenance
    if (provenance.get("config"), provenance.get("data_digest")) == (run["config"], run["data"]):
        return True
    raise InputError(f"expected a new folder, found another evaluator in {output}; choose another output or delete it")


def _open_work_folder(output: Path, run: dict[str, Any]) -> Path:
    """The folder of this run's unfinished work, new or left by an earlier call with the same settings and data."""
    work = output.with_name(f".{output.name}.work")
    record = work / "run.json"
    if output.exists() and any(output.iterdir()):
        raise InputError(f"expected a new or empty folder, found files in {output}; choose another output")
    if not record.exists():
        # Nothing is done before run.json is whole, so a folder without it holds nothing worth keeping.
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        partial = work / "run.partial"
        partial.write_text(json.dumps(run, indent=2), encoding="utf-8")
        partial.rename(record)
    elif json.loads(record.read_text(encoding="utf-8")) != run:
        raise InputError(
            f"expected the settings and data of the unfinished run in {work}, found others; "
            "repeat that run's command, choose another output, or delete the folder"
        )
    return work
