"""The three stages one after another: from QA records to an evaluator folder.

Every stage leaves what it has done in a work folder beside the output; the same call, made
again after a kill at any moment, goes on from there and ends with the same weights, to the
last bit on the same machine with the same number of threads. Several processes share training
and answer sampling; the rest is the main one's alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from aspire_guard.errors import InputError
from aspire_guard.evaluators.evaluator_folder import (
    BaseModelId,
    Manifest,
    find_starter_folder,
    load_aspire_lm,
    read_manifest,
    save_evaluator,
)
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.base_model import fingerprint, load_base_model
from aspire_guard.lm.language_model import LanguageModel
from aspire_trainers.config import TrainingConfig
from aspire_trainers.correctness import Correctness, load_correctness
from aspire_trainers.correctness.judge import cache_grades
from aspire_trainers.data.batching import folds_by_context
from aspire_trainers.data.chain_answers import have_likelihoods
from aspire_trainers.data.sampled_answers import SampledAnswers
from aspire_trainers.data.training_data import TrainingData
from aspire_trainers.evaluation.judged_answer import JudgedAnswer
from aspire_trainers.evaluation.judging import answer_and_judge, grade_answers, judge_chain_answers
from aspire_trainers.record import QARecord
from aspire_trainers.run.distributed import broadcast_from_main, get_processes
from aspire_trainers.run.progress import Progress
from aspire_trainers.run_folder import is_finished, lock_run, open_work_folder, remove_work
from aspire_trainers.stages.adversarial import add_adversarial_variants
from aspire_trainers.stages.alpha_selection import calibrate, choose_alpha
from aspire_trainers.stages.answer_sampling import sample_answers
from aspire_trainers.stages.labelling import LabelledAnswers, add_distractors, label_answers
from aspire_trainers.stages.preflight import check_context_window
from aspire_trainers.stages.self_evaluation import tune_self_evaluation
from aspire_trainers.stages.task_tuning import tune_task


def train_evaluator(config: TrainingConfig, data: TrainingData, output: Path) -> Path:
    """Run the three stages, choose α, calibrate, and write the evaluator folder.

    Returns:
        `output`.

    Raises:
        BaseModelError: the base model is not to be found.
        InputError: `output` holds something else than this run, or another process is at this very run.
    """
    if config.init_from is not None and "model" not in config.model_fields_set:
        config = config.model_copy(
            update={"model": read_manifest(_start_folder(config.init_from)).base_model.name}
        )
    correctness = load_correctness(config.correctness)
    get_processes()  # where there are several GPUs, each process takes its own
    lm = load_base_model(config.model)
    start, learned = _start(config, lm)
    words = {name: getattr(config.self_evaluation, name) for name in ("correct", "wrong")}
    start = replace(start, **{name: word for name, word in words.items() if word is not None})
    if len(set(start.word_ids().tolist())) < len(words):
        raise InputError(
            f"expected two verdicts, found {start.correct!r} and {start.wrong!r}; choose another word"
        )
    run: dict[str, Any] = {
        "config": config.model_dump(mode="json"),
        "data": data.digest(),
        "model": fingerprint(lm),
        "start": learned,
    }
    if broadcast_from_main(lambda: is_finished(output, run)):
        broadcast_from_main(lambda: remove_work(output, run))  # a kill may have come before
        return output
    check_context_window(start, config, data)
    if data.given is None:
        folds_by_context(data.train, config.sampling.folds, config.seed)
    work = broadcast_from_main(lambda: open_work_folder(output, run))
    with ExitStack() as held:
        broadcast_from_main(lambda: lock_run(work, held))
        start = start.copy_onto(lm.to(getattr(torch, config.dtype)))
        del lm  # of a large model there may be no room for both precisions at once
        tuned = _tune(start, config, data, work)
        right = cache_grades(correctness, work / "grades-calibration.jsonl")
        broadcast_from_main(
            lambda: _calibrate(_in_float32(tuned, config), right, config, data, run, output)
        )
        broadcast_from_main(lambda: remove_work(output, run))
    return output


def _start(config: TrainingConfig, lm: LanguageModel) -> tuple[AspireLM, Mapping[str, Any]]:
    """What training goes on from: the base model, or an evaluator, with its digests and how it was trained."""
    if config.init_from is None:
        return AspireLM(lm), {}
    folder = _start_folder(config.init_from)
    manifest = read_manifest(folder)
    start = load_aspire_lm(folder, manifest, lm)
    for adapter in filter(None, (start.task, start.self_eval)):
        adapter.requires_grad_(False)
    return start, {"files": manifest.files, "provenance": manifest.provenance}


def _start_folder(name: str) -> Path:
    return find_starter_folder() if name == "starter" else Path(name)


def _in_float32(aspire: AspireLM, config: TrainingConfig) -> AspireLM:
    """As the evaluator is used, and calibrated."""
    return aspire if config.dtype == "float32" else aspire.copy_onto(load_base_model(config.model))


def _calibrate(
    aspire: AspireLM,
    correctness: Correctness,
    config: TrainingConfig,
    data: TrainingData,
    run: dict[str, Any],
    output: Path,
) -> None:
    """Choose α, calibrate, and write the evaluator folder."""
    judged, given = _judged(aspire, config, data, correctness), data.given_of(data.validation)
    alpha = choose_alpha(judged) if config.alpha is None else config.alpha
    manifest = Manifest(
        base_model=BaseModelId.from_model(config.model, aspire.lm),
        template=aspire.template,
        correct=aspire.correct,
        wrong=aspire.wrong,
        alpha=alpha,
        # At α = 1 no likelihood is asked for.
        likelihood="chain" if given and have_likelihoods(given) and alpha < 1 else "own",
        num_beams=config.num_beams,
        max_new_tokens=config.sampling.max_new_tokens,
        correctness=config.correctness,
        provenance=_provenance(run, data),
    )
    save_evaluator(output, aspire, manifest, calibrate(judged, alpha, config.target_accuracy))


def _judged(
    aspire: AspireLM, config: TrainingConfig, data: TrainingData, correctness: Correctness
) -> list[JudgedAnswer]:
    """The answers to the validation records, given or the model's own, that α and calibration rest on."""
    given = data.given_of(data.validation)
    with Progress("α and calibration", "answers") as progress:
        if given is not None:
            return judge_chain_answers(aspire, given, correctness, progress)
        judged = answer_and_judge(
            aspire,
            data.validation,
            num_beams=config.num_beams,
            max_new_tokens=config.sampling.max_new_tokens,
            progress=progress,
        )
    return grade_answers(judged, correctness)


def _tune(aspire: AspireLM, config: TrainingConfig, data: TrainingData, work: Path) -> AspireLM:
    seed = config.seed
    tuned = _with_task(aspire, config, data.train, data.validation, work)
    batches = {}
    for name, records in (("train", data.train), ("validation", data.validation)):
        if (given := data.given_of(records)) is not None:
            sampled = [answers.sampled for answers in given]
        elif name == "train" and config.sampling.folds > 1:
            sampled = _cross_fitted(aspire, config, data, work)
        else:
            sampled = _sampled(tuned, config, records, work, name)
        if name == "train":
            sampled = add_distractors(sampled, config.self_evaluation.distractors, seed=seed)
        batches[name] = _labelled(sampled, config, work / f"grades-{name}.jsonl")
    with _progress("3/3 self-evaluation") as progress:
        self_eval = tune_self_evaluation(
            tuned,
            add_adversarial_variants(
                batches["train"], config.self_evaluation.persuasion, seed=seed
            ),
            batches["validation"],
            config.self_evaluation,
            seed=seed,
            checkpoint=work / "self_eval.safetensors",
            progress=progress,
        )
    return replace(tuned, self_eval=self_eval.requires_grad_(False))


def _labelled(
    sampled: Sequence[SampledAnswers], config: TrainingConfig, file: Path
) -> list[list[LabelledAnswers]]:
    """By the main process alone: a judge costs, and might tell another one something else."""
    labels = cache_grades(
        load_correctness(config.correctness.with_threshold(config.sampling.threshold)), file
    )
    return broadcast_from_main(
        lambda: label_answers(
            sampled, config.self_evaluation, labels, seed=config.seed, refusal=config.task.refusal
        )
    )


def _cross_fitted(
    aspire: AspireLM, config: TrainingConfig, data: TrainingData, work: Path
) -> list[SampledAnswers]:
    """The answers to each fold of the training records under a θp that has not seen the fold."""
    sampled = []
    folds = folds_by_context(data.train, config.sampling.folds, config.seed)
    for i, fold in enumerate(folds, start=1):
        others = [record for other in folds if other is not fold for record in other]
        on_others = _with_task(aspire, config, others, data.validation, work, without_fold=i)
        sampled += _sampled(on_others, config, fold, work, f"train-{i}")
    return sampled


def _with_task(
    aspire: AspireLM,
    config: TrainingConfig,
    train: Sequence[QARecord],
    validation: Sequence[QARecord],
    work: Path,
    without_fold: int | None = None,
) -> AspireLM:
    """The model under a θp that is fitted on `train`; as it starts with the method "none"."""
    if config.task.method == "none":
        return aspire
    title, file = "1/3 task tuning", "task"
    if without_fold is not None:
        title, file = f"{title} (without fold {without_fold})", f"{file}-without-{without_fold}"
    with _progress(title) as progress:
        task = tune_task(
            aspire,
            train,
            validation,
            config.task,
            seed=config.seed,
            checkpoint=work / f"{file}.safetensors",
            progress=progress,
        )
    return replace(aspire, task=task.requires_grad_(False))


def _sampled(
    aspire: AspireLM, config: TrainingConfig, records: Sequence[QARecord], work: Path, name: str
) -> list[SampledAnswers]:
    with _progress(f"2/3 answer sampling ({name})", "batches") as progress:
        file = work / f"answers-{name}.jsonl"
        return sample_answers(
            aspire, records, config.sampling, seed=config.seed, file=file, progress=progress
        )


def _progress(title: str, unit: str = "steps") -> Progress:
    """Shown by the main process alone."""
    return Progress(title, unit, Console(stderr=True, quiet=not get_processes().is_main_process))


def _answered_by(data: TrainingData) -> str | dict[str, Any]:
    """Whose answers θs and the calibration rest on."""
    if data.given is None:
        return "the base model under θp"
    chains = sorted({chain for answers in data.given.values() for chain in answers.chains})
    return {"given": sum(len(answers.texts) for answers in data.given.values()), "chains": chains}


def _provenance(run: dict[str, Any], data: TrainingData) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "datasets": list(data.sources),
        "train_records": len(data.train),
        "validation_records": len(data.validation),
        "data_digest": run["data"],
        "answers": _answered_by(data),
        "config": run["config"],
        **({"went_on_from": run["start"]["provenance"]} if run["start"] else {}),
        "versions": {
            name: version(name) for name in ("aspire-guard", "torch", "transformers", "peft")
        },
    }
