"""Chains, evaluators, fallbacks and reviews that fail, hang or interrupt: routed, recorded, and nothing leaks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableBranch, RunnableConfig, RunnableLambda
from langgraph.errors import GraphInterrupt

from aspire_guard.errors import RouteTimeoutError
from aspire_guard.exchange import Exchange
from aspire_guard.guard import AspireGuard
from aspire_guard.review.queue import ReviewQueue
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.routing.routes import Custom, Fallback, HumanReview, Timeouts
from aspire_guard.testing import ConstantEvaluator
from aspire_guard.verdict import Verdict

ABSTENTION = "I can't answer this question."
REFUSING = ConstantEvaluator(0.2)
TRUSTING = ConstantEvaluator(0.9)
SHORT = 0.05


@pytest.fixture
def hang() -> Iterator[Callable[[Any], Any]]:
    """Yield a function that does not end before the test does."""
    over = threading.Event()

    def hang(given: Any) -> Any:
        over.wait(60)
        return "zanzibar"

    yield hang
    over.set()


@pytest.fixture
def hanging(hang: Callable[[Any], Any]) -> RunnableLambda[Any, Any]:
    """Make a chain that does not end before the test does, and that can be cancelled if async."""

    async def forever(given: Any) -> Any:
        await asyncio.sleep(60)
        return "zanzibar"

    return RunnableLambda(hang, afunc=forever)


def make_evaluator_trusting(answer: str) -> ConstantEvaluator:
    return ConstantEvaluator(lambda exchange: 0.9 if exchange.answer == answer else 0.1)


def ask_both_ways(guard: AspireGuard, question: Any = "Where?") -> list[Any]:
    return [guard.invoke(question), asyncio.run(guard.ainvoke(question))]


def judge_both_ways(guard: AspireGuard) -> list[Verdict]:
    return [guard.judge("Where?"), asyncio.run(guard.ajudge("Where?"))]


def test_an_evaluator_that_hangs_releases_nothing(hang: Callable[[Any], Any]) -> None:
    """After its time limit the guard continues, and the verdict says why."""
    policy = RoutingPolicy(timeouts=Timeouts(evaluator=SHORT))
    guard = AspireGuard(
        lambda question: "zanzibar", evaluator=ConstantEvaluator(hang), policy=policy
    )
    assert ask_both_ways(guard) == [ABSTENTION] * 2
    for verdict in judge_both_ways(guard):
        assert verdict.error is not None
        assert verdict.error.startswith("expected the evaluator to be done within 0.05 s")
        assert "zanzibar" not in verdict.model_dump_json()
    assert guard.batch(["a", "b"]) == [ABSTENTION] * 2


def test_a_chain_that_hangs_is_an_error(hanging: RunnableLambda[Any, Any]) -> None:
    """A chain that hangs raises an error that is retryable and a TimeoutError."""
    guard = AspireGuard(
        hanging, evaluator=TRUSTING, policy=RoutingPolicy(timeouts=Timeouts(chain=SHORT))
    )
    with pytest.raises(
        RouteTimeoutError, match=r"expected the chain to be done within 0.05 s"
    ) as raised:
        guard.invoke("Where?")
    assert (raised.value.retryable, isinstance(raised.value, TimeoutError)) == (True, True)
    with pytest.raises(RouteTimeoutError):
        asyncio.run(guard.ainvoke("Where?"))


def test_the_overall_time_holds_for_the_chain_too(hanging: RunnableLambda[Any, Any]) -> None:
    """The overall time limits the chain even if the chain has no limit of its own."""
    guard = AspireGuard(
        hanging, evaluator=TRUSTING, policy=RoutingPolicy(timeouts=Timeouts(overall=SHORT))
    )
    with pytest.raises(RouteTimeoutError):
        guard.invoke("Where?")


def test_one_input_that_hangs_costs_the_others_nothing(hanging: RunnableLambda[Any, Any]) -> None:
    """Each input of a batch has its own time."""
    policy = RoutingPolicy(timeouts=Timeouts(chain=0.5))
    guard = AspireGuard(
        RunnableBranch((lambda asked: asked == "b", hanging), lambda asked: "Ada"),
        evaluator=TRUSTING,
        policy=policy,
    )
    for results in (
        guard.batch(["a", "b", "c"], return_exceptions=True),
        asyncio.run(guard.abatch(["a", "b", "c"], return_exceptions=True)),
    ):
        assert [type(result) for result in results] == [str, RouteTimeoutError, str]


def test_a_chain_that_hangs_may_be_routed(hanging: RunnableLambda[Any, Any]) -> None:
    """The policy can route a chain that hangs to a fallback."""
    policy = RoutingPolicy(
        timeouts=Timeouts(chain=SHORT),
        on_chain_error="fallback",
        otherwise=Fallback(lambda question: "Ada"),
    )
    guard = AspireGuard(hanging, evaluator=TRUSTING, policy=policy)
    assert ask_both_ways(guard) == ["Ada", "Ada"]


def test_an_async_chain_that_hangs_is_cancelled() -> None:
    """No task is left behind."""
    ended: list[str] = []

    async def forever(question: str) -> str:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return "zanzibar"

    async def ask() -> int:
        guard = AspireGuard(
            RunnableLambda(forever),
            evaluator=TRUSTING,
            policy=RoutingPolicy(timeouts=Timeouts(chain=SHORT)),
        )
        with pytest.raises(RouteTimeoutError):
            await guard.ainvoke("Where?")
        return len(asyncio.all_tasks())

    assert asyncio.run(ask()) == 1
    assert ended == ["cancelled"]


def test_a_fallback_that_hangs_is_passed_over(hanging: RunnableLambda[Any, Any]) -> None:
    """After a fallback that hangs the next fallback is asked."""
    policy = RoutingPolicy(
        otherwise=(
            Fallback(hanging, timeout=SHORT, retries=1, name="slow"),
            Fallback(lambda question: "Ada"),
        )
    )
    guard = AspireGuard(
        lambda question: "Bob", evaluator=make_evaluator_trusting("Ada"), policy=policy
    )
    for verdict in judge_both_ways(guard):
        assert (verdict.route, verdict.released) == ("fallback", True)
        assert (verdict.steps[1].name, verdict.steps[1].retries) == ("slow", 1)
        assert str(verdict.steps[1].error).startswith(
            "expected the fallback to be done within 0.05 s"
        )


class FinalError(Exception):
    """An error that would only happen again."""

    retryable = False


def test_retries_are_for_errors_that_may_pass() -> None:
    """An error that is marked as not retryable is not retried."""
    asked: list[Exception] = []

    def raising(error: Exception) -> Callable[[Any], Any]:
        def fail(question: Any) -> Any:
            asked.append(error)
            raise error

        return fail

    for error, tries in ((FinalError("zanzibar"), 1), (ConnectionError("zanzibar"), 3)):
        policy = RoutingPolicy(otherwise=Fallback(raising(error), retries=2))
        verdict = AspireGuard(lambda question: "Bob", evaluator=REFUSING, policy=policy).judge(
            "Where?"
        )
        assert (len(asked), verdict.steps[1].retries) == (tries, tries - 1)
        assert verdict.error == f"the fallback raised {type(error).__name__}"
        asked.clear()


def test_what_a_failed_try_retrieved_is_not_what_the_answer_rests_on() -> None:
    """The context of an answer holds only the documents of the try that succeeded."""
    pages: list[Document] = []
    seen: list[Exchange] = []

    class Shelf(BaseRetriever):
        def _get_relevant_documents(self, query: str, **kwargs: Any) -> list[Document]:
            pages.append(Document(f"Page {len(pages)}."))
            return pages[-1:]

    def read(documents: list[Document]) -> str:
        if len(pages) % 2:
            raise ConnectionError("busy")
        return "Ada"

    def note(exchange: Exchange) -> float:
        seen.append(exchange)
        return float(exchange.answer == "Ada")

    policy = RoutingPolicy(otherwise=Fallback(Shelf() | read, retries=1))
    guard = AspireGuard(lambda question: "Bob", evaluator=ConstantEvaluator(note), policy=policy)
    assert ask_both_ways(guard) == ["Ada"] * 2
    assert [exchange.context for exchange in seen] == [None, "Page 1.", None, "Page 3."]


def test_retries_in_a_batch_are_for_those_that_failed() -> None:
    """Each input is tried again by itself."""
    asked: list[str] = []

    def unsteady(question: str) -> str:
        asked.append(question)
        if question == "b" and asked.count("b") == 1:
            raise ConnectionError("once")
        return "Ada"

    policy = RoutingPolicy(otherwise=Fallback(unsteady, retries=2))
    guard = AspireGuard(
        lambda question: "Bob", evaluator=make_evaluator_trusting("Ada"), policy=policy
    )
    assert [verdict.steps[1].retries for verdict in guard.judge_batch(["a", "b", "c"])] == [0, 1, 0]
    assert sorted(asked) == ["a", "b", "b", "c"]


def test_a_batch_of_fallbacks_is_scored_in_one_call() -> None:
    """The answers of a batch of fallbacks are scored in one call, like the chain's own."""
    calls: list[list[str]] = []

    class Counting(ConstantEvaluator):
        def score(self, exchanges: Any) -> Any:
            calls.append([exchange.answer for exchange in exchanges])
            return super().score(exchanges)

    def trust(exchange: Exchange) -> float:
        return float(exchange.answer in ("a", "B", "C"))

    policy = RoutingPolicy(otherwise=Fallback(str.upper))
    guard = AspireGuard(lambda question: question, evaluator=Counting(trust), policy=policy)
    assert guard.batch(["a", "b", "c"]) == ["a", "B", "C"]
    assert asyncio.run(guard.abatch(["a", "b", "c"])) == ["a", "B", "C"]
    assert calls == [["a", "b", "c"], ["B", "C"]] * 2


def test_a_review_store_that_is_down_releases_nothing() -> None:
    """The guard abstains, and neither error nor verdict holds the answer."""
    queue = ReviewQueue("sqlite:////no/such/folder/reviews.db")
    policy = RoutingPolicy(otherwise=HumanReview(queue, wait=5))
    guard = AspireGuard(lambda question: "zanzibar", evaluator=REFUSING, policy=policy)
    assert ask_both_ways(guard) == [ABSTENTION] * 2
    for verdict in judge_both_ways(guard):
        assert verdict.ticket is None
        assert str(verdict.error).startswith(
            "expected the database of ReviewQueue('sqlite:////no/such/folder/reviews"
        )
        assert "zanzibar" not in verdict.model_dump_json()


def test_a_custom_route_leaves_the_event_loop_free() -> None:
    """Under the async methods a custom route runs in a thread."""

    async def both_at_once() -> list[Any]:
        loop, ticked = asyncio.get_running_loop(), asyncio.Event()

        def wait(asked: Any, answer: Any, verdict: Verdict) -> str:
            asyncio.run_coroutine_threadsafe(ticked.wait(), loop).result(timeout=10)
            return "done"

        async def tick() -> None:
            ticked.set()

        guard = AspireGuard(
            lambda question: "Bob", evaluator=REFUSING, policy=RoutingPolicy(otherwise=Custom(wait))
        )
        return list(await asyncio.gather(guard.ainvoke("Where?"), tick()))

    assert asyncio.run(both_at_once()) == ["done", None]


def interrupt(*given: Any) -> Any:
    raise GraphInterrupt()


INTERRUPTED = {
    "chain": AspireGuard(
        interrupt,
        evaluator=TRUSTING,
        policy=RoutingPolicy(on_chain_error="fallback", otherwise=Fallback(lambda question: "Ada")),
    ),
    "fallback": AspireGuard(
        lambda question: "Bob",
        evaluator=REFUSING,
        policy=RoutingPolicy(otherwise=Fallback(interrupt, retries=2)),
    ),
    "custom": AspireGuard(
        lambda question: "Bob",
        evaluator=REFUSING,
        policy=RoutingPolicy(otherwise=Custom(interrupt)),
    ),
    "evaluator": AspireGuard(lambda question: "Bob", evaluator=ConstantEvaluator(interrupt)),
    "timed": AspireGuard(
        interrupt,
        evaluator=TRUSTING,
        policy=RoutingPolicy(timeouts=Timeouts(chain=60, evaluator=60)),
    ),
}


@pytest.mark.parametrize("place", INTERRUPTED)
def test_an_interrupt_of_a_graph_passes(place: str) -> None:
    """An interrupt is an exception but no error, so it is not swallowed, retried or routed."""
    guard = INTERRUPTED[place]
    with pytest.raises(GraphInterrupt):
        guard.invoke("Where?")
    with pytest.raises(GraphInterrupt):
        asyncio.run(guard.ainvoke("Where?"))
    with pytest.raises(GraphInterrupt):
        guard.batch(["a", "b"], return_exceptions=True)
    with pytest.raises(GraphInterrupt):
        asyncio.run(guard.abatch(["a", "b"], return_exceptions=True))


class TraceRecorder(BaseCallbackHandler):
    """A record of what a tracer sees of each run."""

    run_inline = True

    def __init__(self) -> None:
        self.runs: list[tuple[str, UUID, UUID | None, list[str], dict[str, Any]]] = []

    def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
        self.runs.append(
            (
                kwargs["name"],
                kwargs["run_id"],
                kwargs["parent_run_id"],
                kwargs["tags"],
                kwargs["metadata"],
            )
        )


def test_a_trace_tells_the_chain_from_the_fallback() -> None:
    """The runs of chain and fallback are children of the guard's run, under different tags."""
    recorder = TraceRecorder()
    policy = RoutingPolicy(
        otherwise=Fallback(RunnableLambda(lambda question: "Ada").with_config(run_name="large"))
    )
    guard = AspireGuard(
        RunnableLambda(lambda question: "Bob"),
        evaluator=make_evaluator_trusting("Ada"),
        policy=policy,
    )
    assert guard.invoke("Who?", {"callbacks": [recorder]}) == "Ada"
    (_, run_id, _, _, _), chain, fallback = recorder.runs
    assert [run[2] for run in (chain, fallback)] == [run_id, run_id]
    assert (chain[3], fallback[0], fallback[3]) == (
        ["aspire_guard:chain"],
        "large",
        ["aspire_guard:fallback"],
    )


def test_many_parallel_calls_do_not_mix() -> None:
    """Each of 64 parallel calls has its own result, run id, tag, metadata, threshold and fallback."""

    async def slowly(question: str, config: RunnableConfig) -> str:
        await asyncio.sleep(0.001 * (int(question) % 7))
        return f"{config['metadata']['tenant']}:{question}"

    async def other(question: str, config: RunnableConfig) -> str:
        await asyncio.sleep(0.001 * (int(question) % 5))
        return f"other {config['metadata']['tenant']}:{question}"

    def confident(exchange: Exchange) -> float:
        return 1.0 if exchange.answer == f"other t{exchange.question}:{exchange.question}" else 0.6

    tenants = {f"t{number}": 0.5 if number % 2 else 0.7 for number in range(64)}
    policy = RoutingPolicy(
        group_by="tenant", thresholds=tenants, otherwise=Fallback(RunnableLambda(other))
    )
    guard = AspireGuard(
        RunnableLambda(slowly), evaluator=ConstantEvaluator(confident), policy=policy
    )
    recorders, ids = [TraceRecorder() for _ in range(64)], [uuid4() for _ in range(64)]

    async def all_at_once() -> list[Any]:
        configs: list[RunnableConfig] = [
            {
                "callbacks": [recorders[n]],
                "run_id": ids[n],
                "tags": [f"tag{n}"],
                "metadata": {"tenant": f"t{n}"},
            }
            for n in range(64)
        ]
        return list(await asyncio.gather(*(guard.ainvoke(str(n), configs[n]) for n in range(64))))

    assert asyncio.run(all_at_once()) == [
        f"t{n}:{n}" if n % 2 else f"other t{n}:{n}" for n in range(64)
    ]
    for n, recorder in enumerate(recorders):
        assert len(recorder.runs) == (2 if n % 2 else 3)
        assert recorder.runs[0][1:3] == (ids[n], None)
        assert {run[2] for run in recorder.runs[1:]} == {ids[n]}
        assert all(f"tag{n}" in run[3] and run[4]["tenant"] == f"t{n}" for run in recorder.runs)
