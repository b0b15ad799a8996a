"""How soon the first released text of a streamed answer is there: by sentence, and when the whole answer is awaited.

    python benchmarks/sentence_release.py

A scripted chain writes eight sentences of twelve words, 20 ms a word; the evaluator takes no time. Both guards run
in turn; the figures are medians of five pairs.
"""

from __future__ import annotations

from statistics import median
from time import perf_counter
from typing import Literal

from langchain_core.output_parsers import StrOutputParser

from aspire_guard.evaluators.constant import ConstantEvaluator
from aspire_guard.guard import AspireGuard
from aspire_guard.testing import ScriptedChatModel

ANSWER = " ".join(["The keeper of the key is Ada and she is always in."] * 8)
CHAIN = ScriptedChatModel(ANSWER, pause=0.02) | StrOutputParser()
PAIRS = 5


def seconds(release: Literal["answer", "sentence"]) -> tuple[float, float]:
    """Seconds to the first chunk and to the last."""
    guard = AspireGuard(CHAIN, evaluator=ConstantEvaluator(confidence=1.0), release=release)
    started = perf_counter()
    times = [perf_counter() - started for _ in guard.stream("Who keeps the key?")]
    return times[0], times[-1]


def main() -> None:
    """Print one row a way of release."""
    pairs = [(seconds("answer"), seconds("sentence")) for _ in range(PAIRS)]
    print(f"{'release':10}{'first text, s':>16}{'all, s':>10}")
    for place, name in enumerate(("answer", "sentence")):
        first, last = (median(pair[place][part] for pair in pairs) for part in (0, 1))
        print(f"{name:10}{first:>16.3f}{last:>10.3f}")


if __name__ == "__main__":
    main()
