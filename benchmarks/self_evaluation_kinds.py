"""Kinds of θs compared: each is trained on the same answers, and judges the same answers to other questions.

Run: `python benchmarks/self_evaluation_kinds.py --train squad_train.jsonl --dev squad_dev.jsonl --work <folder>`. It
continues an interrupted run. `--kind` measures a single kind, so that several processes can share the work. All answers
are the best beams under the starter's θp. Prints a row for each kind that is finished: the AUROC, in %, of P(z_c), of
the selection score g at the paper's α, and of the likelihood, which is the same for all kinds, and the processor
minutes of training.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from aspire_guard import SelfEvaluator
from aspire_guard.evaluators.self_evaluator import selection_score
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.selection.metrics import auroc
from aspire_trainers.config import TrainingConfig
from aspire_trainers.correctness import RougeL
from aspire_trainers.data.batching import sample_records
from aspire_trainers.data.dataset import load_dataset
from aspire_trainers.data.sampled_answers import SampledAnswers
from aspire_trainers.run.progress import Progress
from aspire_trainers.stages.answer_sampling import sample_answers
from aspire_trainers.stages.labelling import add_distractors, label_answers
from aspire_trainers.stages.self_evaluation import tune_self_evaluation

RECIPE = Path(__file__).parents[1] / "trainers" / "recipes" / "reproduction.toml"
KINDS: dict[str, dict[str, Any]] = {
    "LoRA, all linear layers, rank 2": {"rank": 2},
    "LoRA, all linear layers, rank 8": {},
    "LoRA, all linear layers, rank 8, on one token": {"text": "?"},
    "LoRA, attention, rank 8": {"target_modules": None},
    "soft prompt of 20 vectors": {"method": "soft_prompt", "learning_rate": 0.01},
}
_ALPHA = 0.25
_BATCH_SIZE = 8


def measure(
    kind: str,
    aspire: AspireLM,
    train: list[SampledAnswers],
    held_out: Sequence[SampledAnswers],
    work: Path,
) -> None:
    """Train a θs of this kind, and write its figures to `work`."""
    recipe = TrainingConfig.load(RECIPE)
    config = recipe.self_evaluation.model_copy(update=KINDS[kind])
    rouge = RougeL(recipe.sampling.threshold)
    answers = add_distractors(train, config.distractors, seed=0)
    batches = label_answers(answers, config, rouge, seed=0)
    start = time.process_time()
    with Progress(kind, "steps") as progress:
        checkpoint = work / f"{kind}.safetensors"
        self_eval = tune_self_evaluation(
            aspire, batches, [], config, seed=0, checkpoint=checkpoint, progress=progress
        )
    minutes = (time.process_time() - start) / 60
    self_eval.requires_grad_(False)
    likelihoods, log_p_correct = score(replace(aspire, self_eval=self_eval), held_out)
    selection_scores = [
        selection_score(likelihood, log_p, _ALPHA)
        for likelihood, log_p in zip(likelihoods, log_p_correct, strict=True)
    ]
    correct = rouge.grade([(answers.record, answers.texts[0]) for answers in held_out])
    figures = {
        "P": auroc(log_p_correct, correct),
        "g": auroc(selection_scores, correct),
        "likelihood": auroc(likelihoods, correct),
        "size": sum(value.numel() for _, value in self_eval.named_parameters()),
        "minutes": minutes,
    }
    result_file(kind, work).write_text(json.dumps(figures), encoding="utf-8")


def score(aspire: AspireLM, held_out: Sequence[SampledAnswers]) -> tuple[list[float], list[float]]:
    """Return the log-likelihood and log P(z_c) of the best answer to each question, in nats."""
    rows = [
        (answers.record.question, answers.record.context, answers.texts[0]) for answers in held_out
    ]
    likelihoods: list[float] = []
    log_p_correct: list[float] = []
    for start in range(0, len(rows), _BATCH_SIZE):
        batch_likelihoods, batch_log_p = aspire.score(rows[start : start + _BATCH_SIZE])
        likelihoods += batch_likelihoods.tolist()
        log_p_correct += batch_log_p.tolist()
    return likelihoods, log_p_correct


def sample(
    aspire: AspireLM, data: str, limit: int, recipe: TrainingConfig, file: Path
) -> list[SampledAnswers]:
    """Sample answers to at most `limit` questions, or read those that `file` already has."""
    records = sample_records(load_dataset(data), limit, seed=0)
    with Progress(file.stem, "batches") as progress:
        return sample_answers(
            aspire, records, recipe.sampling, seed=0, file=file, progress=progress
        )


def result_file(kind: str, work: Path) -> Path:
    """Return the path of the figures of a kind."""
    return work / f"{kind}.json"


def print_table(work: Path) -> None:
    """Print a row for each kind that is finished."""
    print("| θs | trained numbers | P(z_c) | g | likelihood | minutes |")
    print("|---|---|---|---|---|---|")
    for kind in KINDS:
        file = result_file(kind, work)
        if file.exists():
            figures = json.loads(file.read_text("utf-8"))
            areas = " | ".join(f"{100 * figures[name]:.1f}" for name in ("P", "g", "likelihood"))
            print(f"| {kind} | {figures['size']:,} | {areas} | {figures['minutes']:.0f} |")


def parse_options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--train", required=True, help="QA records to learn from, as JSONL")
    parser.add_argument(
        "--dev", required=True, help="QA records whose answers are judged, as JSONL"
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for answers and results")
    parser.add_argument(
        "--limit", type=int, nargs=2, default=(800, 300), help="the number of questions of each"
    )
    parser.add_argument("--kind", choices=KINDS, help="measure only this kind")
    return parser.parse_args()


def main() -> None:
    """Measure the kinds that are missing, and print the table."""
    options = parse_options()
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    recipe = TrainingConfig.load(RECIPE)
    starter = SelfEvaluator.starter().aspire
    aspire = replace(starter.copy_onto(starter.lm.to(getattr(torch, recipe.dtype))), self_eval=None)
    train_limit, dev_limit = options.limit
    train = sample(aspire, options.train, train_limit, recipe, work / "train.jsonl")
    held_out = sample(aspire, options.dev, dev_limit, recipe, work / "dev.jsonl")
    for kind in KINDS if options.kind is None else [options.kind]:
        if not result_file(kind, work).exists():
            measure(kind, aspire, train, held_out, work)
    print(f"{len(train)} questions to learn from, {len(held_out)} others\n")
    print_table(work)


if __name__ == "__main__":
    main()
