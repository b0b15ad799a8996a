"""Sync steps that hang under the async methods, while the event loop's other work goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from operator import attrgetter
from typing import Any

import pytest

from aspire_guard.errors import RouteTimeoutError
from aspire_guard.exchange import Exchange
from aspire_guard.execution.guarded_run import GuardedRun
from aspire_guard.guard import AspireGuard
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.routing.routes import Timeouts
from aspire_guard.testing import ConstantEvaluator
from aspire_guard.timeouts import run_with_timeout

TRUSTING = ConstantEvaluator(0.9)
SHORT = RoutingPolicy(timeouts=Timeouts(chain=0.05))


async def ada(question: str) -> str:
    return "Ada"


def ask_beside_hanging_chains(ask: Callable[[], Awaitable[Any]]) -> Any:
    """Return the result of `ask` while chains that hang keep all threads of the event loop's executor."""
    over = threading.Event()

    async def both() -> Any:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(max_workers=2))
        slow = AspireGuard(lambda question: over.wait(60), evaluator=TRUSTING, policy=SHORT)
        try:
            for _ in range(2):
                with pytest.raises(RouteTimeoutError):
                    await slow.ainvoke("Where?")
            return await asyncio.wait_for(ask(), timeout=10)
        finally:
            over.set()

    return asyncio.run(both())


@pytest.mark.parametrize("policy", [SHORT, RoutingPolicy()], ids=["time limits", "no time limits"])
def test_scoring_does_not_wait_for_chains_that_hang(policy: RoutingPolicy) -> None:
    """Scoring does not wait for chains that hang, neither for a call nor for a batch."""
    guard = AspireGuard(ada, evaluator=TRUSTING, policy=policy)
    assert ask_beside_hanging_chains(lambda: guard.ainvoke("Who?")) == "Ada"
    assert ask_beside_hanging_chains(lambda: guard.abatch(["Who?", "And who?"])) == ["Ada", "Ada"]


def test_loading_an_evaluator_does_not_wait_for_chains_that_hang() -> None:
    """Evaluators load in the threads for scoring, so they don't wait for chains that hang."""
    run = GuardedRun(
        AspireGuard(ada).chain, lambda: TRUSTING, RoutingPolicy(), "guard", attrgetter("output")
    )
    assert ask_beside_hanging_chains(lambda: run.arun(["Who?"], [{}])) == ["Ada"]


def test_an_evaluator_sees_the_context_of_its_call() -> None:
    """An evaluator sees the context variables of its call, even in its own thread."""
    tenant: ContextVar[str] = ContextVar("tenant")

    def score(exchange: Exchange) -> float:
        assert threading.current_thread() is not threading.main_thread()
        return 0.9 if tenant.get() == exchange.question else 0.1

    async def ask(name: str) -> Any:
        tenant.set(name)
        return await AspireGuard(ada, evaluator=ConstantEvaluator(score)).ainvoke(name)

    async def many() -> list[Any]:
        return list(await asyncio.gather(*(ask(str(number)) for number in range(8))))

    assert asyncio.run(many()) == ["Ada"] * 8


@pytest.mark.parametrize("way", ["sync", "async"])
def test_evaluations_that_hang_leave_a_limited_number_of_threads(way: str) -> None:
    """Beyond the limit an evaluation is refused at once, and all is well again once the others have ended."""
    over = threading.Event()
    evaluator = ConstantEvaluator(lambda exchange: float(over.wait(60)))
    policy = RoutingPolicy(timeouts=Timeouts(evaluator=0.001))
    guard = AspireGuard(ada, evaluator=evaluator, policy=policy)
    sync_guard = AspireGuard(lambda question: "Ada", evaluator=evaluator, policy=policy)
    before = threading.active_count()

    def judge_many_in_turn() -> list[Any]:
        return [sync_guard.judge("Who?") for _ in range(60)]

    async def judge_many() -> list[Any]:
        return [await guard.ajudge("Who?") for _ in range(60)]

    try:
        verdicts = judge_many_in_turn() if way == "sync" else asyncio.run(judge_many())
        assert threading.active_count() - before <= 33
    finally:
        over.set()
    assert {verdict.route for verdict in verdicts} == {"abstain"}
    assert str(verdicts[-1].error).startswith(
        "expected fewer than 32 threads of the evaluator that are still at work after their time, found 32"
    )
    while threading.active_count() > before:
        threading.Event().wait(0.01)
    assert run_with_timeout(lambda: "done", 10, "evaluator") == "done"
