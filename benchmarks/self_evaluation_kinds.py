"""What kinds of θs learn: each is trained on the same answers, and judges the same answers to other questions.

Run: `python benchmarks/self_evaluation_kinds.py --train squad_train.jsonl --dev squad_dev.jsonl --work <folder>`. It
goes on where it was stopped; `--kind` does one, so that several processes can share the work. All answers are the best
beams under the starter's θp. Prints a row for each kind that is finished: the AUROC, in %, of P(z_c), of the selection
score g at the paper's α, and of the likelihood, which is the same for all; and a processor's minutes of training.
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
from aspire_trainers.record import QARecord
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


def measure(
    kind: str,
    aspire: AspireLM,
    train: list[SampledAnswers],
    held_out: Sequence[SampledAnswers],
    work: Path,
) -> None:
    """Train a θs of this kind, and keep its figures in `work`."""
    recipe = TrainingConfig.load(RECIPE)
    config = recipe.self_evaluation.model_copy(update=KINDS[kind])
    right = RougeL(recipe.sampling.threshold)
    batches = label_answers(
        add_distractors(train, config.distractors, seed=0), config, right, seed=0
    )
    began = time.process_time()
    with Progress(kind, "steps") as progress:
        checkpoint = work / f"{kind}.safetensors"
        self_eval = tune_self_evaluation(
            aspire, batches, [], config, seed=0, checkpoint=checkpoint, progress=progress
        ).requires_grad_(False)
    minutes = (time.process_time() - began) / 60
    judge = replace(aspire, self_eval=self_eval)
    rows = [
        (answers.record.question, answers.record.context, answers.texts[0]) for answers in held_out
    ]
    judged = [judge.score(rows[i : i + 8]) for i in range(0, len(rows), 8)]
    likelihood, log_p = (torch.cat(part).tolist() for part in zip(*judged, strict=True))
    g = [selection_score(a, b, _ALPHA) for a, b in zip(likelihood, log_p, strict=True)]
    correct = right.grade([(answers.record, answers.texts[0]) for answers in held_out])
    figures = {
        name: auroc(scores, correct)
        for name, scores in (("P", log_p), ("g", g), ("likelihood", likelihood))
    }
    size = sum(value.numel() for _, value in self_eval.named_parameters())
    _result(kind, work).write_text(
        json.dumps(figures | {"size": size, "minutes": minutes}), encoding="utf-8"
    )


def _answers(
    aspire: AspireLM, records: list[QARecord], recipe: TrainingConfig, file: Path
) -> list[SampledAnswers]:
    with Progress(file.stem, "batches") as progress:
        return sample_answers(
            aspire, records, recipe.sampling, seed=0, file=file, progress=progress
        )


def _result(kind: str, work: Path) -> Path:
    return work / f"{kind}.json"


def main() -> None:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--train", required=True, help="QA records to learn from, as JSONL")
    parser.add_argument(
        "--dev", required=True, help="QA records whose answers are judged, as JSONL"
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for answers and results")
    parser.add_argument(
        "--limit", type=int, nargs=2, default=(800, 300), help="how many questions of each"
    )
    parser.add_argument("--kind", choices=KINDS, help="only this one")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    recipe = TrainingConfig.load(RECIPE)
    starter = SelfEvaluator.starter().aspire
    aspire = replace(starter.copy_onto(starter.lm.to(getattr(torch, recipe.dtype))), self_eval=None)
    train, held_out = (
        _answers(
            aspire,
            sample_records(load_dataset(file), limit, seed=0),
            recipe,
            options.work / f"{part}.jsonl",
        )
        for part, file, limit in zip(
            ("train", "dev"), (options.train, options.dev), options.limit, strict=True
        )
    )
    for kind in KINDS if options.kind is None else [options.kind]:
        if not _result(kind, options.work).exists():
            measure(kind, aspire, train, held_out, options.work)
    print(f"{len(train)} questions to learn from, {len(held_out)} others\n")
    print("| θs | trained numbers | P(z_c) | g | likelihood | minutes |")
    print("|---|---|---|---|---|---|")
    for kind in KINDS:
        if (file := _result(kind, options.work)).exists():
            found = json.loads(file.read_text("utf-8"))
            areas = " | ".join(f"{100 * found[name]:.1f}" for name in ("P", "g", "likelihood"))
            print(f"| {kind} | {found['size']:,} | {areas} | {found['minutes']:.0f} |")


if __name__ == "__main__":
    main()
