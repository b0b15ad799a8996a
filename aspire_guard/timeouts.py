"""Work under a time limit: what takes longer is left behind, in its thread or cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from threading import Thread
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from aspire_guard.errors import RouteTimeoutError

Result = TypeVar("Result")

# What a cancelled task may take to clean up before it is left behind too, in seconds.
_GRACE = 1.0

# One executor an event loop. It is not the loop's own, in which LangChain runs the sync steps of
# chains: a step that hangs keeps its thread past any time limit, and scoring must not wait for it.
# A forked process has none of its parent's threads, but has loops of its own.
_executors: WeakKeyDictionary[asyncio.AbstractEventLoop, ThreadPoolExecutor] = WeakKeyDictionary()


def run_with_timeout(work: Callable[[], Result], seconds: float | None, who: str) -> Result:
    """The result of `work`, in a thread of its own where there is a limit.

    Raises:
        RouteTimeoutError: it took longer than `seconds`; the thread goes on, and what it gives is dropped.
    """
    if seconds is None:
        return work()
    future = _start_thread(work)
    if not wait([future], timeout=seconds).done:
        raise timeout_error(seconds, who)
    return future.result()


async def arun_with_timeout(
    work: Coroutine[Any, Any, Result], seconds: float | None, who: str
) -> Result:
    """As `timed`, for a coroutine, which is cancelled when the time is over or this call is cancelled."""
    if seconds is None:
        return await work
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if task.done():
            return task.result()
        raise timeout_error(seconds, who)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=_GRACE)


async def run_in_thread(work: Callable[[], Result], seconds: float | None, who: str) -> Result:
    """As `timed`, off the event loop; the thread goes on when the time is over or this call is cancelled."""
    # Not the loop's own executor: that waits for its threads at the end, also for one that hangs.
    future = asyncio.wrap_future(_start_thread(work))
    done, _ = await asyncio.wait({future}, timeout=seconds)
    if not done:
        raise timeout_error(seconds or 0.0, who)
    return future.result()


async def run_in_scoring_thread(work: Callable[[], Result]) -> Result:
    """The result of `work`, off the event loop; as many run at once as in the loop's own executor."""
    loop = asyncio.get_running_loop()
    executor = _executors.get(loop)
    if executor is None:
        executor = _executors[loop] = ThreadPoolExecutor(thread_name_prefix="aspire-guard-scoring")
    return await loop.run_in_executor(executor, copy_context().run, work)


def timeout_error(seconds: float, who: str) -> RouteTimeoutError:
    """The error about work that took too long."""
    return RouteTimeoutError(
        f"expected the {who} to be done within {seconds:.3g} s, found it still at work; allow it more time in the "
        "policy's timeouts, or give the policy a route for this case"
    )


def _start_thread(work: Callable[[], Result]) -> Future[Result]:
    future: Future[Result] = Future()
    context = copy_context()

    def run() -> None:
        try:
            result = context.run(work)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    # A daemon: the interpreter does not wait for it at the end.
    Thread(target=run, name="aspire-guard-timed", daemon=True).start()
    return future
