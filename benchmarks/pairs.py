"""The settings of the benchmarks on a language model, and the timing of pairs of calls.

Both calls of a pair run one after the other in one process, so a machine that slows down slows both.
"""

from __future__ import annotations

import statistics
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aspire_trainers.data.batching import sample_records
from aspire_trainers.data.dataset import load_dataset
from aspire_trainers.record import QARecord


@dataclass(frozen=True)
class Settings:
    """The settings of a benchmark.

    Attributes:
        records: the questions. Some are about the same passage.
        one_per_passage: the same number of questions if the data has them, each about another passage.
        pairs: the number of pairs of calls.
    """

    records: list[QARecord]
    one_per_passage: list[QARecord]
    pairs: int


def parse_settings(description: str | None, *, records: int, pairs: int) -> Settings:
    """Parse the command line. `records` and `pairs` are the defaults of the benchmark."""
    parser = ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument(
        "--data", default="handbook:train", help="QA records as JSONL, or handbook:train"
    )
    parser.add_argument("--records", type=int, default=records, help="the number of questions")
    parser.add_argument("--pairs", type=int, default=pairs, help="the number of pairs of calls")
    arguments = parser.parse_args()
    answerable = [record for record in load_dataset(arguments.data) if record.answerable]
    by_passage = {record.context: record for record in answerable}
    return Settings(
        records=sample_records(answerable, arguments.records, seed=0),
        one_per_passage=list(by_passage.values())[: arguments.records],
        pairs=arguments.pairs,
    )


def time_in_turn(
    ours: Callable[[], Any], reference: Callable[[], Any], pairs: int
) -> tuple[list[float], list[float]]:
    """Return the seconds of `pairs` calls of each function, called in turn."""
    our_seconds, reference_seconds = [], []
    for _ in range(pairs):
        our_seconds.append(time_call(ours))
        reference_seconds.append(time_call(reference))
    return our_seconds, reference_seconds


def time_call(call: Callable[[], Any]) -> float:
    """Return the wall-clock seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def divide(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Return the ratio of each pair."""
    return [a / b for a, b in zip(numerators, denominators, strict=True)]


def print_comparison(
    name: str, ours: list[float], reference: list[float], ratios: list[float], wanted: str
) -> None:
    """Print the median seconds of both sides, and the minimum, median and maximum of the ratios."""
    our_median, reference_median = statistics.median(ours), statistics.median(reference)
    spread = f"{min(ratios):.2f} / {statistics.median(ratios):.2f} / {max(ratios):.2f}"
    print(
        f"{name}: {our_median:.2f} s, reference {reference_median:.2f} s; {spread} (wanted: {wanted})"
    )
