"""Time a guard against RunnableWithFallbacks around the same chain, call by call, in pairs.

Run: `python benchmarks/guard_overhead.py`. Prints the microseconds of both and the ratio of their medians for a chain
of prompt, model and parser, sync and async, with nobody listening and with a callback handler; 1.5 is the most we
allow. The model is a fake that answers at once, and the evaluator a constant, so that only the wrappers differ.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda

from aspire_guard import AspireGuard
from aspire_guard.testing import ConstantEvaluator

_PAIRS = 1000
_WARM_UP = 50
INPUT = {"question": "Who keeps the key?"}


class Listener(BaseCallbackHandler):
    """Hears everything, does nothing."""

    run_inline = True


def seconds(call: Callable[[], Any]) -> float:
    """Wall-clock seconds of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def compare(name: str, ours: Callable[[], Any], theirs: Callable[[], Any]) -> None:
    """Print the medians of interleaved pairs of calls, in microseconds, and their ratio."""
    for _ in range(_WARM_UP):
        ours()
        theirs()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(_PAIRS)]
    own, other = (1e6 * statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"{name:18} guard {own:5.0f} µs, with_fallbacks {other:5.0f} µs, ratio {own / other:.2f}")


def main() -> None:
    """Print one line for each way of calling."""
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
