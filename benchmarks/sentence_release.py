"""The time until the first released text of a streamed answer, by sentence and by whole answer.

    python benchmarks/sentence_release.py

A scripted chain writes eight sentences of twelve words, 20 ms a word, and the evaluator takes no time. The chain's own
stream, without a guard, is timed for comparison. All three run in turn, and the figures are medians of five rounds.
"""

from __future__ import annotations

from statistics import median
from time import perf_counter
from typing import Any, Literal

from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import Runnable

from aspire_guard.guard import AspireGuard
from aspire_guard.testing import ConstantEvaluator, ScriptedChatModel

ANSWER = " ".join(["The keeper of the key is Ada and she is always in."] * 8)
CHAIN = ScriptedChatModel(ANSWER, pause=0.02) | StrOutputParser()
ROUNDS = 5


def make_guard(release: Literal["answer", "sentence"]) -> AspireGuard:
    """Guard the chain."""
    return AspireGuard(CHAIN, evaluator=ConstantEvaluator(confidence=1.0), release=release)


CHAINS: dict[str, Runnable[Any, Any]] = {
    "unguarded": CHAIN,
    "answer": make_guard("answer"),
    "sentence": make_guard("sentence"),
}


def time_stream(chain: Runnable[Any, Any]) -> tuple[float, float]:
    """Return the seconds until the first chunk and until the last."""
    start = perf_counter()
    times = [perf_counter() - start for _ in chain.stream("Who keeps the key?")]
    return times[0], times[-1]


def main() -> None:
    """Print a row for each kind of release."""
    first: dict[str, list[float]] = {name: [] for name in CHAINS}
    last: dict[str, list[float]] = {name: [] for name in CHAINS}
    for _ in range(ROUNDS):
        for name, chain in CHAINS.items():
            first_seconds, last_seconds = time_stream(chain)
            first[name].append(first_seconds)
            last[name].append(last_seconds)
    print(f"{'release':10}{'first text, s':>16}{'all, s':>10}")
    for name in CHAINS:
        print(f"{name:10}{median(first[name]):>16.3f}{median(last[name]):>10.3f}")


if __name__ == "__main__":
    main()
