"""The paper's table with SmolLM2-135M: ASPIRE against the five baselines, over seeds.

Run: `python benchmarks/paper_table.py --data <folder> --work <folder> > docs/paper-table.md`. It goes on where it was
stopped; `--dataset` and `--seed` do a part, so that several processes can share the work, and the page holds what is
finished. `--data` holds `<dataset>_train.jsonl` and `<dataset>_dev.jsonl`.

An evaluator of each dataset and seed is trained on the train file with `trainers/recipes/reproduction.toml`; that of
CoQA, whose file has few passages, goes on from SQuAD's of the same seed. It answers `--limit` questions of the dev
file, and every score ranks these answers. `squad_unanswerable` has no train file: half of its questions are SQuAD's,
half are not answered by their passage, and SQuAD's evaluators, which never saw such a question, answer them.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from aspire_guard import SelfEvaluator
from aspire_guard.evaluators.evaluator_folder import read_manifest
from aspire_trainers.config import TrainingConfig
from aspire_trainers.correctness import load_correctness
from aspire_trainers.data.batching import sample_records
from aspire_trainers.data.dataset import load_dataset
from aspire_trainers.data.training_data import TrainingData
from aspire_trainers.evaluation.baselines import Suite
from aspire_trainers.evaluation.baselines.entailment import RougeEntailment
from aspire_trainers.evaluation.judging import answer_records, grade_answers
from aspire_trainers.evaluation.reports import Report, build_report, evaluate_pretrained
from aspire_trainers.evaluation.score_reports import ScoreReport, ScoreTable
from aspire_trainers.pipeline import train_evaluator
from aspire_trainers.run.progress import Progress

DATASETS = ("squad", "squad_unanswerable", "coqa", "triviaqa")
SEEDS = (0, 1, 2)
GOES_ON_FROM = {"coqa": "squad"}
ANSWERED_BY = {"squad_unanswerable": "squad"}
RECIPE = Path(__file__).parents[1] / "trainers" / "recipes" / "reproduction.toml"
SINGLE_PASS = ("perplexity", "self_eval")
_INTRODUCTION = """# The paper's table with a small model

SmolLM2-135M; mean ± standard deviation over as many seeds as a title says, in %; tokens are what a score needs beyond
the answer, in forward-token equivalents. Made by `python benchmarks/paper_table.py`, whose first lines say how; what
follows from it stands in [the paper in this code](reproduction.md#the-table)."""


def measure(dataset: str, seed: int, data: Path, work: Path, limit: int) -> None:
    """Train an evaluator and compare the scores of its answers; with the first seed the pre-trained model's, too."""
    if _result(dataset, seed, work).exists():
        return
    trained = ANSWERED_BY.get(dataset, dataset)
    if start := GOES_ON_FROM.get(trained):
        measure(start, seed, data, work, limit)
    config = TrainingConfig.load(
        RECIPE, seed=seed, init_from=start and str(work / f"{start}-{seed}")
    )
    learned = TrainingData.load([str(data / f"{trained}_train.jsonl")], [], config)
    saved = SelfEvaluator.from_pretrained(
        train_evaluator(config, learned, _folder(dataset, seed, work))
    )
    # In the precision of its training, which takes half the time and is the same for every score.
    aspire = saved.aspire.copy_onto(saved.aspire.lm.to(getattr(torch, config.dtype)))
    evaluator = SelfEvaluator(aspire, saved.manifest, saved.calibration)
    files = [data / f"{name}_dev.jsonl" for name in dict.fromkeys((trained, dataset))]
    records = [
        record
        for file in files
        for record in sample_records(load_dataset(str(file)), limit // len(files), seed=0)
    ]
    right, suite = load_correctness(config.correctness), Suite.paper(RougeEntailment(), samples=10)
    judged = grade_answers(
        answer_records(evaluator, records, Progress(f"{dataset} {seed}", "questions"), suite), right
    )
    pretrained = None
    if seed == SEEDS[0]:
        pretrained = evaluate_pretrained(
            evaluator, records, right, suite, Progress("without θp", "questions")
        )
    report = build_report(evaluator, judged, suite, pretrained)
    partial = work / f"{dataset}-{seed}.partial"
    partial.write_text(report.model_dump_json(indent=2), encoding="utf-8")
    partial.rename(_result(dataset, seed, work))


def page(work: Path) -> Iterator[str]:
    """The lines of the page, of all that is measured."""
    yield _INTRODUCTION
    for dataset in DATASETS:
        seeds = [seed for seed in SEEDS if _result(dataset, seed, work).exists()]
        reports = [
            Report.model_validate_json(_result(dataset, seed, work).read_text("utf-8"))
            for seed in seeds
        ]
        if not reports:
            continue
        yield f"\n## {dataset}: {reports[0].n} questions, seeds: {len(reports)}\n"
        yield f"{_training([_folder(dataset, seed, work) for seed in seeds])}\n"
        yield "| answers | accuracy | score | AUROC | AUACC | tokens |"
        yield "|---|---|---|---|---|---|"
        yield from _rows("under θp", reports)
        yield from _rows(
            "without θp", [report.pretrained for report in reports if report.pretrained]
        )
        yield "\nASPIRE minus the best baseline on its own answers (each seed):\n"
        yield from _ahead(
            reports, "of all", [name for name in reports[0].scores if name != "aspire"]
        )
        yield from _ahead(reports, "of those that sample nothing", SINGLE_PASS)


def _training(evaluators: Sequence[Path]) -> str:
    """What they were trained on, and what their θs is."""
    provenances = [read_manifest(folder).provenance for folder in evaluators]
    questions = sorted({provenance["train_records"] for provenance in provenances})
    ranks = sorted({provenance["config"]["self_evaluation"]["rank"] for provenance in provenances})
    before = [
        name
        for provenance in provenances[:1]
        for name in provenance.get("went_on_from", {}).get("datasets", ())
    ]
    start = f" It goes on from {', '.join(before)}." if before else ""
    return f"Training questions: {_listed(questions)}; θs: a LoRA of rank {_listed(ranks)}.{start}"


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def _rows(answers: str, blocks: Sequence[ScoreTable]) -> Iterator[str]:
    for name in blocks[0].scores if blocks else ():
        reports = [block.scores[name] for block in blocks]
        areas = (
            _spread([_value(report, metric) for report in reports]) for metric in ("auroc", "auacc")
        )
        accuracy = _spread([block.accuracy.value for block in blocks])
        yield f"| {answers} | {accuracy} | {name} | {' | '.join(areas)} | {reports[0].cost.tokens:.0f} |"


def _ahead(reports: Sequence[Report], which: str, names: Sequence[str]) -> Iterator[str]:
    for metric in ("auroc", "auacc"):
        means = {
            name: statistics.fmean(_value(report.scores[name], metric) for report in reports)
            for name in names
        }
        best = max(names, key=lambda name: means[name])
        gains = [
            _value(report.scores["aspire"], metric) - _value(report.scores[best], metric)
            for report in reports
        ]
        each = ", ".join(f"{100 * gain:+.1f}" for gain in gains)
        yield f"- {metric.upper()}, best {which} ({best}): {_spread(gains)} ({each})"


def _value(report: ScoreReport, metric: str) -> float:
    estimate = getattr(report, metric)
    return 0.5 if estimate is None else float(estimate.value)


def _spread(values: Sequence[float]) -> str:
    """In %."""
    deviation = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.fmean(values):.1f}{deviation}"


def _folder(dataset: str, seed: int, work: Path) -> Path:
    """The evaluator's."""
    return work / f"{ANSWERED_BY.get(dataset, dataset)}-{seed}"


def _result(dataset: str, seed: int, work: Path) -> Path:
    return work / f"{dataset}-{seed}.json"


def main() -> None:
    """Measure what is missing, and print the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the datasets")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for evaluators and results"
    )
    parser.add_argument("--dataset", choices=DATASETS, help="only this one")
    parser.add_argument("--seed", type=int, choices=SEEDS, help="only this one")
    parser.add_argument("--limit", type=int, default=300, help="questions of each dev file")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    for dataset in DATASETS if options.dataset is None else [options.dataset]:
        for seed in SEEDS if options.seed is None else [options.seed]:
            measure(dataset, seed, options.data, options.work, options.limit)
    print("\n".join(page(options.work)))


if __name__ == "__main__":
    main()
