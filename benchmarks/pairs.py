"""What the benchmarks on a language model share: their records, and pairs of calls that take turns.

Both sides of a pair run one after the other in one process, so a machine that slows down slows both.
"""

from __future__ import annotations

import statistics
import time
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aspire_trainers.data.batching import sample_records
from aspire_trainers.data.dataset import load_dataset
from aspire_trainers.record import QARecord


@dataclass(frozen=True)
class Settings:
    """What every one of these benchmarks is told.

    Attributes:
        records: the questions, all those of a passage among them.
        apart: as many questions where the data has them, each about a passage of its own.
        pairs: how often both sides run.
    """

    records: list[QARecord]
    apart: list[QARecord]
    pairs: int


def settings(description: str | None, *, records: int, pairs: int) -> Settings:
    """Read the command line; `records` and `pairs` are the defaults of this benchmark."""
    parser = ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument(
        "--data", default="handbook:train", help="QA records as JSONL, or handbook:train"
    )
    parser.add_argument("--records", type=int, default=records, help="questions asked")
    parser.add_argument("--pairs", type=int, default=pairs, help="how often both sides run")
    arguments = parser.parse_args()
    answerable = [record for record in load_dataset(arguments.data) if record.answerable]
    apart = list({record.context: record for record in answerable}.values())
    return Settings(
        sample_records(answerable, arguments.records, seed=0),
        apart[: arguments.records],
        arguments.pairs,
    )


def in_turn(
    ours: Callable[[], Any], reference: Callable[[], Any], pairs: int
) -> tuple[list[float], list[float]]:
    """Seconds of `pairs` calls of each, taken in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(pairs):
        for call, seconds in zip((ours, reference), times, strict=True):
            began = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - began)
    return times


def show(
    name: str, ours: list[float], reference: list[float], ratios: list[float], wanted: str
) -> None:
    """Print the median seconds of both sides, and the least, the median and the greatest ratio."""
    own, other = statistics.median(ours), statistics.median(reference)
    least, middle, most = min(ratios), statistics.median(ratios), max(ratios)
    print(
        f"{name}: {own:.2f} s, reference {other:.2f} s; {least:.2f} / {middle:.2f} / {most:.2f} (wanted: {wanted})"
    )
