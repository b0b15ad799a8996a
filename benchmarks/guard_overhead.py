"""Time a guard against RunnableWithFallbacks around the same chain, call by call, in pairs.

Run: `python benchmarks/guard_overhead.py`. Prints the microseconds of both and the ratio of their medians for a chain
of prompt, model and parser: sync, sync with a callback handler, and async. The ratio may be at most 1.5. The model is a
fake that answers at once, and the evaluator is a constant, so only the wrappers differ.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from pairs import time_in_turn

from aspire_guard import AspireGuard
from aspire_guard.testing import ConstantEvaluator

_PAIRS = 1000
_WARM_UP = 50
INPUT = {"question": "Who keeps the key?"}


class Listener(BaseCallbackHandler):
    """A handler that receives every event and ignores it."""

    run_inline = True


def compare(name: str, guard: Callable[[], Any], fallbacks: Callable[[], Any]) -> None:
    """Print the medians of interleaved pairs of calls, in microseconds, and their ratio."""
    time_in_turn(guard, fallbacks, _WARM_UP)
    guard_seconds, fallback_seconds = time_in_turn(guard, fallbacks, _PAIRS)
    ours = 1e6 * statistics.median(guard_seconds)
    theirs = 1e6 * statistics.median(fallback_seconds)
    print(
        f"{name:18} guard {ours:5.0f} µs, with_fallbacks {theirs:5.0f} µs, ratio {ours / theirs:.2f}"
    )


def main() -> None:
    """Print a line for each way of calling."""
    prompt = ChatPromptTemplate.from_template("{question}")
    chain: Runnable[Any, Any] = prompt | FakeListChatModel(responses=["Ada"]) | StrOutputParser()
    guard = AspireGuard(chain, evaluator=ConstantEvaluator(0.9))
    fallbacks = chain.with_fallbacks([RunnableLambda(lambda question: "unused")])
    listened: RunnableConfig = {"callbacks": [Listener()]}
    loop = asyncio.new_event_loop()

    compare("invoke", lambda: guard.invoke(INPUT), lambda: fallbacks.invoke(INPUT))
    compare(
        "invoke, listened",
        lambda: guard.invoke(INPUT, listened),
        lambda: fallbacks.invoke(INPUT, listened),
    )
    compare(
        "ainvoke",
        lambda: loop.run_until_complete(guard.ainvoke(INPUT)),
        lambda: loop.run_until_complete(fallbacks.ainvoke(INPUT)),
    )
    loop.close()


if __name__ == "__main__":
    main()
