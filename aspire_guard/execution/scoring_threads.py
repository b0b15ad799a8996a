"""Threads in which evaluators work under the async methods, apart from the event loop's own.

LangChain runs the sync steps of chains in the loop's executor. One that hangs keeps its thread past any time limit, and
what is scored must not wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar
from weakref import WeakKeyDictionary

Result = TypeVar("Result")

# One a loop, as with the loop's own: a forked process, which has none of its parent's threads, has loops of its own.
_executors: WeakKeyDictionary[asyncio.AbstractEventLoop, ThreadPoolExecutor] = WeakKeyDictionary()


async def in_scoring_thread(work: Callable[[], Result]) -> Result:
    """The result of `work`, off the event loop; as many run at once as in the loop's own executor."""
    loop = asyncio.get_running_loop()
    executor = _executors.get(loop)
    if executor is None:
        executor = _executors[loop] = ThreadPoolExecutor(thread_name_prefix="aspire-guard-scoring")
    return await loop.run_in_executor(executor, copy_context().run, work)
