"""The whole training run: the three stages in order, from QA records to an evaluator folder.

Every stage saves its work in a folder next to the output. After a kill at any moment the same call continues from there
and ends with the same weights, to the last bit on the same machine with the same number of threads. Several processes
share training and answer sampling. The main process alone does the rest.
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
from aspire_trainers.data.batching import split_into_folds
from aspire_trainers.data.chain_answers import have_likelihoods
from aspire_trainers.data.sampled_answers import SampledAnswers
from aspire_trainers.data.training_data import TrainingData
from aspire_trainers.evaluation.judged_answer import JudgedAnswer
from aspire_trainers.evaluation.judging import answer_and_judge, grade_answers, judge_chain_answers
from aspire_trainers.record import QARecord
from aspire_trainers.run.distributed import broadcast_from_main, get_processes
from aspire_trainers.run.progress import Progress
from aspire_trainers.run_folder import (
    is_finished,
    lock_run,
    open_work_folder,
    remove_work,
    save_settings,
)
from aspire_trainers.stages.adversarial import add_adversarial_variants
from aspire_trainers.stages.alpha_selection import calibrate, choose_alpha
from aspire_trainers.stages.answer_sampling import sample_answers
from aspire_trainers.stages.labelling import LabelledAnswers, add_distractors, label_answers
from aspire_trainers.stages.preflight import check_adapters, check_context_window
from aspire_trainers.stages.self_evaluation import tune_self_evaluation
from aspire_trainers.stages.task_tuning import tune_task


def train_evaluator(config: TrainingConfig, data: TrainingData, output: str | Path) -> Path:
    """Run the three stages, choose α, calibrate, and write the evaluator folder.

    Returns:
        `output`.

    Raises:
        BaseModelError: the base model can't be found.
        InputError: `output` holds something other than this run, or another process works on the same run.
    """
    output = Path(output)
    config = _complete_config(config)
    correctness = load_correctness(config.correctness)
    get_processes()  # On a machine with several GPUs, each process chooses one of its own.
    lm = load_base_model(config.model)
    start, start_description = _load_start(config, lm)
    start = _choose_verdict_words(start, config)
    run: dict[str, Any] = {
        "config": config.model_dump(mode="json"),
        "data": data.digest(),
        "model": fingerprint(lm),
        "start": start_description,
    }
    if broadcast_from_main(lambda: is_finished(output, run)):
        # A kill may have come after the evaluator was saved and before its work was removed.
        broadcast_from_main(lambda: remove_work(output, run))
        return output
    check_context_window(start, config, data)
    if data.chain_answers is None:
        split_into_folds(data.train, config.sampling.folds, config.seed)  # refuses too many folds
    work = broadcast_from_main(lambda: open_work_folder(output, run))
    with ExitStack() as lock_holder:
        broadcast_from_main(lambda: lock_run(work, lock_holder))
        broadcast_from_main(lambda: save_settings(work, run))
        start = start.copy_onto(lm.to(getattr(torch, config.dtype)))
        del lm  # The memory may not have room for a large model in both precisions at once.
        check_adapters(start, config)
        tuned = _tune_adapters(start, config, data, work)
        correctness = cache_grades(correctness, work / "grades-calibration.jsonl")
        correctness = data.grade_by_labels(correctness)

        def calibrate_and_save() -> None:
            aspire = _restore_float32(tuned, config)
            _save_calibrated(aspire, correctness, config, data, run, output)

        broadcast_from_main(calibrate_and_save)
        broadcast_from_main(lambda: remove_work(output, run))
    return output


def _complete_config(config: TrainingConfig) -> TrainingConfig:
    """Set the base model to the start evaluator's, if the config names no model."""
    if config.init_from is None or "model" in config.model_fields_set:
        return config
    manifest = read_manifest(_find_start_folder(config.init_from))
    return config.model_copy(update={"model": manifest.base_model.name})


def _load_start(config: TrainingConfig, lm: LanguageModel) -> tuple[AspireLM, Mapping[str, Any]]:
    """Load the model that training starts from: the base model alone, or an evaluator.

    Returns:
        The model, and the evaluator's digests and provenance, which are empty for the base model.
    """
    if config.init_from is None:
        return AspireLM(lm), {}
    folder = _find_start_folder(config.init_from)
    manifest = read_manifest(folder)
    start = load_aspire_lm(folder, manifest, lm)
    for adapter in (start.task, start.self_eval):
        if adapter is not None:
            adapter.requires_grad_(False)
    return start, {"files": manifest.files, "provenance": manifest.provenance}


def _find_start_folder(name: str) -> Path:
    return find_starter_folder() if name == "starter" else Path(name)


def _choose_verdict_words(start: AspireLM, config: TrainingConfig) -> AspireLM:
    """Set z_c and z_w to the words of the config, if it has any.

    Raises:
        InputError: a word is not a single token, or the two words are the same token.
    """
    correct, wrong = config.self_evaluation.correct, config.self_evaluation.wrong
    if correct is not None:
        start = replace(start, correct=correct)
    if wrong is not None:
        start = replace(start, wrong=wrong)
    correct_id, wrong_id = start.word_ids().tolist()
    if correct_id == wrong_id:
        raise InputError(
            f"expected two verdicts, found {start.correct!r} and {start.wrong!r}; choose another word"
        )
    return start


def _tune_adapters(
    start: AspireLM, config: TrainingConfig, data: TrainingData, work: Path
) -> AspireLM:
    """Run the three stages, and return the model under θp and θs."""
    tuned = _tune_task(start, config, data.train, data.validation, work)

    sampled = _sample_training_answers(start, tuned, config, data, work)
    sampled = add_distractors(sampled, config.self_evaluation.distractors, seed=config.seed)
    train = _label(sampled, config, data, work / "grades-train.jsonl")

    held_out = _get_chain_samples(data, data.validation)
    if held_out is None:
        held_out = _sample(tuned, config, data.validation, work, "validation")
    validation = _label(held_out, config, data, work / "grades-validation.jsonl")

    train = add_adversarial_variants(train, config.self_evaluation.persuasion, seed=config.seed)
    with _make_progress("3/3 self-evaluation") as progress:
        self_eval = tune_self_evaluation(
            tuned,
            train,
            validation,
            config.self_evaluation,
            seed=config.seed,
            checkpoint=work / "self_eval.safetensors",
            progress=progress,
        )
    return replace(tuned, self_eval=self_eval.requires_grad_(False))


def _tune_task(
    start: AspireLM,
    config: TrainingConfig,
    train: Sequence[QARecord],
    validation: Sequence[QARecord],
    work: Path,
    without_fold: int | None = None,
) -> AspireLM:
    """Run stage 1 on `train`, and return the model under θp. The method "none" returns `start`."""
    if config.task.method == "none":
        return start
    title, name = "1/3 task tuning", "task"
    if without_fold is not None:
        title, name = f"{title} (without fold {without_fold})", f"{name}-without-{without_fold}"
    with _make_progress(title) as progress:
        task = tune_task(
            start,
            train,
            validation,
            config.task,
            seed=config.seed,
            checkpoint=work / f"{name}.safetensors",
            progress=progress,
        )
    return replace(start, task=task.requires_grad_(False))


def _sample_training_answers(
    start: AspireLM, tuned: AspireLM, config: TrainingConfig, data: TrainingData, work: Path
) -> list[SampledAnswers]:
    """Run stage 2 on the training records, unless a chain answered them."""
    chain_samples = _get_chain_samples(data, data.train)
    if chain_samples is not None:
        return chain_samples
    if config.sampling.folds > 1:
        return _sample_with_cross_fitting(start, config, data, work)
    return _sample(tuned, config, data.train, work, "train")


def _get_chain_samples(
    data: TrainingData, records: Sequence[QARecord]
) -> list[SampledAnswers] | None:
    """Return a chain's answers in the form of sampled answers, or None if the evaluator's own model answers."""
    chain_answers = data.get_chain_answers(records)
    if chain_answers is None:
        return None
    return [answers.to_sampled_answers() for answers in chain_answers]


def _sample_with_cross_fitting(
    start: AspireLM, config: TrainingConfig, data: TrainingData, work: Path
) -> list[SampledAnswers]:
    """Answer each fold of the training records under a θp that was fitted on the other folds."""
    sampled: list[SampledAnswers] = []
    folds = split_into_folds(data.train, config.sampling.folds, config.seed)
    for number, fold in enumerate(folds, start=1):
        other_folds = [other for other in folds if other is not fold]
        other_records = [record for other in other_folds for record in other]
        tuned = _tune_task(start, config, other_records, data.validation, work, without_fold=number)
        sampled += _sample(tuned, config, fold, work, f"train-{number}")
    return sampled


def _sample(
    tuned: AspireLM, config: TrainingConfig, records: Sequence[QARecord], work: Path, name: str
) -> list[SampledAnswers]:
    with _make_progress(f"2/3 answer sampling ({name})", "batches") as progress:
        return sample_answers(
            tuned,
            records,
            config.sampling,
            seed=config.seed,
            file=work / f"answers-{name}.jsonl",
            progress=progress,
        )


def _label(
    sampled: Sequence[SampledAnswers], config: TrainingConfig, data: TrainingData, file: Path
) -> list[list[LabelledAnswers]]:
    """Label the answers in the main process alone: a judge costs money, and might answer differently each time."""
    rule = config.correctness.with_threshold(config.sampling.threshold)
    correctness = data.grade_by_labels(cache_grades(load_correctness(rule), file))
    return broadcast_from_main(
        lambda: label_answers(
            sampled,
            config.self_evaluation,
            correctness,
            seed=config.seed,
            refusal=config.task.refusal,
        )
    )


def _make_progress(title: str, unit: str = "steps") -> Progress:
    """Make a progress display that only the main process shows."""
    is_quiet = not get_processes().is_main_process
    return Progress(title, unit, Console(stderr=True, quiet=is_quiet))


def _restore_float32(aspire: AspireLM, config: TrainingConfig) -> AspireLM:
    """Return the model in float32, in which the evaluator is calibrated and used."""
    return aspire if config.dtype == "float32" else aspire.copy_onto(load_base_model(config.model))


def _save_calibrated(
    aspire: AspireLM,
    correctness: Correctness,
    config: TrainingConfig,
    data: TrainingData,
    run: dict[str, Any],
    output: Path,
) -> None:
    """Choose α, calibrate, and write the evaluator folder."""
    judged = _judge_validation_records(aspire, config, data, correctness)
    alpha = choose_alpha(judged) if config.alpha is None else config.alpha
    chain_answers = data.get_chain_answers(data.validation)
    # With α = 1 the score does not depend on a likelihood, so the evaluator asks for no chain's likelihood.
    uses_chain = bool(alpha < 1 and chain_answers and have_likelihoods(chain_answers))
    manifest = Manifest(
        base_model=BaseModelId.from_model(config.model, aspire.lm),
        template=aspire.template,
        correct=aspire.correct,
        wrong=aspire.wrong,
        alpha=alpha,
        likelihood="chain" if uses_chain else "own",
        num_beams=config.num_beams,
        max_new_tokens=config.sampling.max_new_tokens,
        correctness=data.choose_rule(config.correctness),
        provenance=_describe_provenance(run, data),
    )
    calibration = calibrate(judged, alpha, config.target_accuracy)
    save_evaluator(output, aspire, manifest, calibration)


def _judge_validation_records(
    aspire: AspireLM, config: TrainingConfig, data: TrainingData, correctness: Correctness
) -> list[JudgedAnswer]:
    """Judge the answers to the validation records, a chain's or the model's own, for α and calibration."""
    chain_answers = data.get_chain_answers(data.validation)
    with Progress("α and calibration", "answers") as progress:
        if chain_answers is not None:
            return judge_chain_answers(aspire, chain_answers, correctness, progress)
        judged = answer_and_judge(
            aspire,
            data.validation,
            num_beams=config.num_beams,
            max_new_tokens=config.sampling.max_new_tokens,
            progress=progress,
        )
    return grade_answers(judged, correctness)


def _describe_provenance(run: dict[str, Any], data: TrainingData) -> dict[str, Any]:
    provenance = {
        "date": datetime.now(UTC).date().isoformat(),
        "datasets": list(data.sources),
        "train_records": len(data.train),
        "validation_records": len(data.validation),
        "data_digest": run["data"],
        "answers": _describe_answers(data),
        "config": run["config"],
    }
    if run["start"]:
        provenance["went_on_from"] = run["start"]["provenance"]
    packages = ("aspire-guard", "torch", "transformers", "peft")
    provenance["versions"] = {package: version(package) for package in packages}
    return provenance


def _describe_answers(data: TrainingData) -> str | dict[str, Any]:
    """Describe the source of the answers that θs and the calibration are based on."""
    if data.chain_answers is None:
        return "the base model under θp"
    chain_answers = data.chain_answers.values()
    chains = {chain for answers in chain_answers for chain in answers.chains}
    count = sum(len(answers.texts) for answers in chain_answers)
    return {"given": count, "chains": sorted(chains)}
