"""The paper's table with SmolLM2-135M: ASPIRE against the five baselines, over seeds.

Run: `python benchmarks/paper_table.py --data <folder> --work <folder> > docs/paper-table.md`. It continues an
interrupted run. `--dataset` and `--seed` measure a part, so that several processes can share the work, and the page has
all finished parts. `--data` holds `<dataset>_train.jsonl` and `<dataset>_dev.jsonl`.

An evaluator of each dataset and seed is trained on the train file with `trainers/recipes/reproduction.toml`. CoQA's
file has few passages, so its evaluator continues from SQuAD's of the same seed. Each evaluator answers `--limit`
questions of the dev file, and every score ranks these answers. `squad_unanswerable` has no train file: half of its
questions are SQuAD's, and half are not answered by their passage. SQuAD's evaluators answer them, though they were
trained on no unanswerable question.
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
from aspire_trainers.record import QARecord
from aspire_trainers.run.progress import Progress

DATASETS = ("squad", "squad_unanswerable", "coqa", "triviaqa")
SEEDS = (0, 1, 2)
CONTINUES_FROM = {"coqa": "squad"}
ANSWERED_BY = {"squad_unanswerable": "squad"}
RECIPE = Path(__file__).parents[1] / "trainers" / "recipes" / "reproduction.toml"
SINGLE_PASS = ("perplexity", "self_eval")
_INTRODUCTION = """# The paper's table with a small model

SmolLM2-135M; mean ± standard deviation over the seeds that a title counts, in %. Tokens are those that a score needs
beyond the answer, in forward-token equivalents. Made by `python benchmarks/paper_table.py`, whose first lines say how.
[The paper in this code](reproduction.md#the-table) discusses the results."""


def measure(dataset: str, seed: int, data: Path, work: Path, limit: int) -> None:
    """Train an evaluator and compare the scores of its answers. The first seed also measures the pre-trained model."""
    if result_file(dataset, seed, work).exists():
        return
    evaluator = train(dataset, seed, data, work, limit)
    correctness = load_correctness(TrainingConfig.load(RECIPE, seed=seed).correctness)
    suite = Suite.paper(RougeEntailment(), samples=10)
    records = load_dev_records(dataset, data, limit)
    progress = Progress(f"{dataset} {seed}", "questions")
    judged = grade_answers(answer_records(evaluator, records, progress, suite), correctness)
    pretrained = None
    if seed == SEEDS[0]:
        progress = Progress("without θp", "questions")
        pretrained = evaluate_pretrained(evaluator, records, correctness, suite, progress)
    report = build_report(evaluator, judged, suite, pretrained)
    partial = work / f"{dataset}-{seed}.partial"
    partial.write_text(report.model_dump_json(indent=2), encoding="utf-8")
    partial.rename(result_file(dataset, seed, work))


def train(dataset: str, seed: int, data: Path, work: Path, limit: int) -> SelfEvaluator:
    """Train the evaluator that answers a dataset, after the evaluator that it continues from."""
    trained = ANSWERED_BY.get(dataset, dataset)
    start = CONTINUES_FROM.get(trained)
    init_from = None
    if start is not None:
        measure(start, seed, data, work, limit)
        init_from = str(work / f"{start}-{seed}")
    config = TrainingConfig.load(RECIPE, seed=seed, init_from=init_from)
    training_data = TrainingData.load([str(data / f"{trained}_train.jsonl")], [], config)
    folder = train_evaluator(config, training_data, evaluator_folder(dataset, seed, work))
    saved = SelfEvaluator.from_pretrained(folder)
    # It answers in the precision of its training, which halves the time and is the same for every score.
    aspire = saved.aspire.copy_onto(saved.aspire.lm.to(getattr(torch, config.dtype)))
    return SelfEvaluator(aspire, saved.manifest, saved.calibration)


def load_dev_records(dataset: str, data: Path, limit: int) -> list[QARecord]:
    """Load `limit` questions, an equal number from each dev file."""
    names = dict.fromkeys((ANSWERED_BY.get(dataset, dataset), dataset))
    records = []
    for name in names:
        dev = load_dataset(str(data / f"{name}_dev.jsonl"))
        records += sample_records(dev, limit // len(names), seed=0)
    return records


def format_page(work: Path) -> Iterator[str]:
    """Yield the lines of the page, for all finished parts."""
    yield _INTRODUCTION
    for dataset in DATASETS:
        seeds = [seed for seed in SEEDS if result_file(dataset, seed, work).exists()]
        reports = []
        for seed in seeds:
            text = result_file(dataset, seed, work).read_text("utf-8")
            reports.append(Report.model_validate_json(text))
        if not reports:
            continue
        yield f"\n## {dataset}: {reports[0].n} questions, seeds: {len(reports)}\n"
        folders = [evaluator_folder(dataset, seed, work) for seed in seeds]
        yield f"{describe_training(folders)}\n"
        yield "| answers | accuracy | score | AUROC | AUACC | tokens |"
        yield "|---|---|---|---|---|---|"
        yield from format_rows("under θp", reports)
        pretrained = [report.pretrained for report in reports if report.pretrained]
        yield from format_rows("without θp", pretrained)
        yield "\nASPIRE minus the best baseline on its own answers (each seed):\n"
        baselines = [name for name in reports[0].scores if name != "aspire"]
        yield from format_gains(reports, "of all", baselines)
        yield from format_gains(reports, "of those that sample nothing", SINGLE_PASS)


def describe_training(folders: Sequence[Path]) -> str:
    """Describe the evaluators' training data and their θs."""
    provenances = [read_manifest(folder).provenance for folder in folders]
    questions = sorted({provenance["train_records"] for provenance in provenances})
    ranks = sorted({provenance["config"]["self_evaluation"]["rank"] for provenance in provenances})
    earlier_datasets = provenances[0].get("went_on_from", {}).get("datasets", ())
    start = f" It goes on from {', '.join(earlier_datasets)}." if earlier_datasets else ""
    return f"Training questions: {_join(questions)}; θs: a LoRA of rank {_join(ranks)}.{start}"


def format_rows(answers: str, blocks: Sequence[ScoreTable]) -> Iterator[str]:
    """Yield a row for each score of these answers, over all seeds."""
    if not blocks:
        return
    accuracy = _format_spread([block.accuracy.value for block in blocks])
    for name in blocks[0].scores:
        reports = [block.scores[name] for block in blocks]
        auroc = _format_spread([_get_value(report, "auroc") for report in reports])
        auacc = _format_spread([_get_value(report, "auacc") for report in reports])
        tokens = f"{reports[0].cost.tokens:.0f}"
        yield f"| {answers} | {accuracy} | {name} | {auroc} | {auacc} | {tokens} |"


def format_gains(
    reports: Sequence[Report], description: str, baselines: Sequence[str]
) -> Iterator[str]:
    """Yield ASPIRE's gain over the best of some baselines, for each metric."""
    for metric in ("auroc", "auacc"):
        means = {name: _compute_mean(reports, name, metric) for name in baselines}
        best = max(baselines, key=lambda name: means[name])
        gains = []
        for report in reports:
            aspire = _get_value(report.scores["aspire"], metric)
            gains.append(aspire - _get_value(report.scores[best], metric))
        each = ", ".join(f"{100 * gain:+.1f}" for gain in gains)
        spread = _format_spread(gains)
        yield f"- {metric.upper()}, best {description} ({best}): {spread} ({each})"


def _compute_mean(reports: Sequence[Report], name: str, metric: str) -> float:
    return statistics.fmean(_get_value(report.scores[name], metric) for report in reports)


def _get_value(report: ScoreReport, metric: str) -> float:
    """Return a metric, or 0.5 if the answers can't be ranked."""
    estimate = getattr(report, metric)
    return 0.5 if estimate is None else float(estimate.value)


def _format_spread(values: Sequence[float]) -> str:
    """Return the mean and the standard deviation in %."""
    deviation = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.fmean(values):.1f}{deviation}"


def _join(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def evaluator_folder(dataset: str, seed: int, work: Path) -> Path:
    """Return the folder of the evaluator that answers a dataset."""
    return work / f"{ANSWERED_BY.get(dataset, dataset)}-{seed}"


def result_file(dataset: str, seed: int, work: Path) -> Path:
    """Return the path of the report on a dataset."""
    return work / f"{dataset}-{seed}.json"


def main() -> None:
    """Measure the parts that are missing, and print the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the datasets")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for evaluators and results"
    )
    parser.add_argument("--dataset", choices=DATASETS, help="measure only this dataset")
    parser.add_argument("--seed", type=int, choices=SEEDS, help="measure only this seed")
    parser.add_argument("--limit", type=int, default=300, help="questions of each dev file")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    for dataset in DATASETS if options.dataset is None else [options.dataset]:
        for seed in SEEDS if options.seed is None else [options.seed]:
            measure(dataset, seed, options.data, options.work, options.limit)
    print("\n".join(format_page(options.work)))


if __name__ == "__main__":
    main()
