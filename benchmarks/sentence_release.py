"""How soon the first released text of a streamed answer is there: by sentence, and when the whole answer is awaited.

The chain's own stream, without a guard, is there for comparison.

    python benchmarks/sentence_release.py

A scripted chain writes eight sentences of twelve words, 20 ms a word; the evaluator takes no time. All three
run in turn; the figures are medians of five rounds.
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


def guarded(release: Literal["answer", "sentence"]) -> AspireGuard:
    """The chain under guard."""
    return AspireGuard(CHAIN, evaluator=ConstantEvaluator(confidence=1.0), release=release)


WAYS: dict[str, Runnable[Any, Any]] = {
    "unguarded": CHAIN,
    "answer": guarded("answer"),
    "sentence": guarded("sentence"),
}


def seconds(chain: Runnable[Any, Any]) -> tuple[float, float]:
    """Seconds to the first chunk and to the last."""
    started = perf_counter()
    times = [perf_counter() - started for _ in chain.stream("Who keeps the key?")]
    return times[0], times[-1]


def main() -> None:
    """Print one row a way of release."""
    rounds = [[seconds(chain) for chain in WAYS.values()] for _ in range(ROUNDS)]
    print(f"{'release':10}{'first text, s':>16}{'all, s':>10}")
    for place, name in enumerate(WAYS):
        first, last = (median(row[place][part] for row in rounds) for part in (0, 1))
        print(f"{name:10}{first:>16.3f}{last:>10.3f}")


if __name__ == "__main__":
    main()
