"""Work under a time limit. Work that takes longer is abandoned in its thread, or cancelled."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from threading import Lock, Thread
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from aspire_guard.errors import RouteTimeoutError

Result = TypeVar("Result")

# The seconds that a cancelled task may take to clean up before it is abandoned too.
_CANCEL_SECONDS = 1.0

# A thread that has run out of time can't be ended. So many may be left of work of one name.
_MAX_ABANDONED_THREADS = 32
_abandoned: Counter[str] = Counter()
_abandoned_lock = Lock()

# One executor per event loop. It is not the loop's own, in which LangChain runs the sync steps of
# chains: a step that hangs keeps its thread past any time limit, and scoring must not wait for it.
# A forked process has none of its parent's threads, but has loops of its own.
_executors: WeakKeyDictionary[asyncio.AbstractEventLoop, ThreadPoolExecutor] = WeakKeyDictionary()


def run_with_timeout(work: Callable[[], Result], seconds: float | None, name: str) -> Result:
    """Return the result of `work`, which runs in a thread of its own if there is a limit.

    Args:
        work: the function to call.
        seconds: the time limit in seconds, or None for no limit.
        name: the name of the work in the error.

    Raises:
        RouteTimeoutError: the work took longer than `seconds`. Its thread keeps running, and its result is dropped.
            If 32 threads that were left that way are still running, the work is not even begun.
    """
    if seconds is None:
        return work()
    _check_abandoned(name)
    future = _start_thread(work)
    if not wait([future], timeout=seconds).done:
        _abandon(future, name)
        raise _make_timeout_error(seconds, name)
    return future.result()


async def arun_with_timeout(
    work: Coroutine[Any, Any, Result], seconds: float | None, name: str
) -> Result:
    """Await a coroutine, which is cancelled when its time is over or this call is cancelled.

    Takes the arguments and raises the errors of `run_with_timeout`.
    """
    if seconds is None:
        return await work
    task = asyncio.create_task(work)
    task.add_done_callback(_retrieve_error)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if task.done():
            return task.result()
        raise _make_timeout_error(seconds, name)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=_CANCEL_SECONDS)


async def run_in_thread(work: Callable[[], Result], seconds: float | None, name: str) -> Result:
    """Run `work` in a thread of its own, off the event loop.

    The thread keeps running when its time is over or this call is cancelled. Takes the arguments
    and raises the errors of `run_with_timeout`.
    """
    # The loop's own executor is not used: at its end it waits for all its threads, even for one that hangs.
    _check_abandoned(name)
    thread_future = _start_thread(work)
    future = asyncio.wrap_future(thread_future)
    future.add_done_callback(_retrieve_error)
    try:
        done, _ = await asyncio.wait({future}, timeout=seconds)
    except asyncio.CancelledError:
        _abandon(thread_future, name)
        raise
    if not done:
        _abandon(thread_future, name)
        raise _make_timeout_error(seconds or 0.0, name)
    return future.result()


async def run_in_scoring_thread(work: Callable[[], Result]) -> Result:
    """Run `work` off the event loop, in an executor as large as the loop's own."""
    loop = asyncio.get_running_loop()
    executor = _executors.get(loop)
    if executor is None:
        executor = ThreadPoolExecutor(thread_name_prefix="aspire-guard-scoring")
        _executors[loop] = executor
    return await loop.run_in_executor(executor, copy_context().run, work)


def _forget_abandoned() -> None:
    """Count anew in a forked child, which has none of its parent's threads."""
    global _abandoned_lock
    _abandoned_lock = Lock()
    _abandoned.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_abandoned)


def _check_abandoned(name: str) -> None:
    """Make sure that not too many threads are left of work of this name.

    Raises:
        RouteTimeoutError: too many are left.
    """
    found = _abandoned[name]
    if found >= _MAX_ABANDONED_THREADS:
        raise RouteTimeoutError(
            f"expected fewer than {_MAX_ABANDONED_THREADS} threads of the {name} that are still at work after their "
            f"time, found {found}; find out why it hangs, and let it give up by itself"
        )


def _abandon(future: Future[Any], name: str) -> None:
    """Count a thread as abandoned until its work is done."""
    with _abandoned_lock:
        _abandoned[name] += 1

    def forget(done: Future[Any]) -> None:
        with _abandoned_lock:
            _abandoned[name] -= 1

    future.add_done_callback(forget)


def _retrieve_error(future: asyncio.Future[Any]) -> None:
    """Take note of the error of abandoned work, which asyncio would log with its words otherwise."""
    if not future.cancelled():
        future.exception()


def _make_timeout_error(seconds: float, name: str) -> RouteTimeoutError:
    return RouteTimeoutError(
        f"expected the {name} to be done within {seconds:.3g} s, found it still at work; allow it more time in the "
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

    # A daemon, so that the interpreter does not wait for it at the end.
    Thread(target=run, name="aspire-guard-timed", daemon=True).start()
    return future
