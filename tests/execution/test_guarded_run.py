"""The same output and verdict for every path through the guard, sync and async, alone and in a batch."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.runnables.config import ensure_config

from aspire_guard.errors import ChainError, EvaluationError
from aspire_guard.exchange import Exchange
from aspire_guard.execution.guarded_run import GuardedRun
from aspire_guard.guard import AspireGuard
from aspire_guard.review.item import Decision, ReviewItem
from aspire_guard.review.queue import ReviewQueue
from aspire_guard.routing.flow import Outcome
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.routing.routes import (
    Abstain,
    Accept,
    Band,
    Budget,
    Custom,
    Fallback,
    HumanReview,
    Timeouts,
)
from aspire_guard.testing import ConstantEvaluator
from aspire_guard.verdict import Verdict

CONFIDENCES = {"bad": 0.2, "fair": 0.4, "good": 0.9}
ABSTENTION = "I can't answer this question."


def make_chain(*answers: str | Exception) -> Callable[[Any], str]:
    """Make a chain that gives these answers one after another to each input, then repeats the last answer."""
    calls: Counter[Any] = Counter()

    def answer(question: Any) -> str:
        calls[question] += 1
        reply = answers[min(calls[question], len(answers)) - 1]
        if isinstance(reply, Exception):
            raise reply
        return reply

    return answer


def confidence(exchange: Exchange) -> float:
    if exchange.answer == "unscorable":
        raise MemoryError("no memory")
    return CONFIDENCES[exchange.answer]


@dataclass(frozen=True)
class Way:
    """A path through the guard: a chain and a policy, which are made for each run, and the expected result."""

    chain: Callable[[], Any]
    policy: Callable[[ReviewQueue], RoutingPolicy]
    output: str | type[Exception]
    route: str | None = None
    decisions: dict[str, Decision] = field(default_factory=dict)


def route_below(*routes: Any, **settings: Any) -> Callable[[ReviewQueue], RoutingPolicy]:
    """Make a policy with these routes below the threshold. A function among them makes a route."""
    return lambda queue: RoutingPolicy(
        otherwise=tuple(route() if callable(route) else route for route in routes), **settings
    )


def route_to_review(
    wait: float | None = 5, otherwise: Any = None
) -> Callable[[ReviewQueue], RoutingPolicy]:
    return lambda queue: RoutingPolicy(otherwise=HumanReview(queue, wait=wait, otherwise=otherwise))


def make_fallback(*answers: str | Exception, **settings: Any) -> Callable[[], Fallback]:
    return lambda: Fallback(make_chain(*answers), name="other", **settings)


def make_bad_chain() -> Any:
    return make_chain("bad")


APPROVE, REJECT = Decision(action="approve"), Decision(action="reject")
PATHS = {
    "accepted": Way(lambda: make_chain("good"), lambda queue: RoutingPolicy(), "good", "accept"),
    "abstained": Way(make_bad_chain, lambda queue: RoutingPolicy(), ABSTENTION, "abstain"),
    "abstained in other words": Way(
        make_bad_chain, route_below(Abstain(lambda verdict: verdict.route)), "abstain", "abstain"
    ),
    "fallback": Way(make_bad_chain, route_below(make_fallback("good")), "good", "fallback"),
    "second fallback": Way(
        make_bad_chain,
        route_below(make_fallback("fair"), make_fallback("good")),
        "good",
        "fallback",
    ),
    "no fallback is good": Way(
        make_bad_chain,
        route_below(make_fallback("fair"), make_fallback("bad")),
        ABSTENTION,
        "abstain",
    ),
    "fallback that fails": Way(
        make_bad_chain, route_below(make_fallback(ValueError("no"))), ABSTENTION, "abstain"
    ),
    "fallback with a retry": Way(
        make_bad_chain,
        route_below(make_fallback(ValueError("no"), "good", retries=1)),
        "good",
        "fallback",
    ),
    "budget": Way(
        make_bad_chain,
        route_below(make_fallback("good"), budget=Budget(hops=0)),
        ABSTENTION,
        "abstain",
    ),
    "unscorable": Way(
        lambda: make_chain("unscorable"), route_below(make_fallback("good")), "good", "fallback"
    ),
    "unscorable, abstains": Way(
        lambda: make_chain("unscorable"),
        route_below(make_fallback("good"), on_error="abstain"),
        ABSTENTION,
        "abstain",
    ),
    "unscorable, raises": Way(
        lambda: make_chain("unscorable"),
        route_below(make_fallback("good"), on_error="raise"),
        EvaluationError,
    ),
    "fallback unscorable": Way(
        make_bad_chain, route_below(make_fallback("unscorable")), ABSTENTION, "abstain"
    ),
    "chain raises": Way(
        lambda: make_chain(ConnectionError("down")),
        route_below(make_fallback("good")),
        ConnectionError,
    ),
    "chain raises, fallback": Way(
        lambda: make_chain(ConnectionError("down")),
        route_below(make_fallback("good"), on_chain_error="fallback"),
        "good",
        "fallback",
    ),
    "custom": Way(
        make_bad_chain,
        route_below(Custom(lambda asked, reply, verdict: f"{asked}: {reply}?")),
        "q: bad?",
        "custom",
    ),
    "custom that fails": Way(
        make_bad_chain, route_below(Custom(lambda *given: given[9])), ABSTENTION, "abstain"
    ),
    "accepted at last": Way(
        make_bad_chain, route_below(make_fallback("fair"), Accept()), "fair", "accept"
    ),
    "ticket": Way(make_bad_chain, route_to_review(wait=None), ABSTENTION, "abstain"),
    "nobody decides": Way(make_bad_chain, route_to_review(wait=0.05), ABSTENTION, "abstain"),
    "approved": Way(make_bad_chain, route_to_review(), "bad", "human_review", {"bad": APPROVE}),
    "edited": Way(
        make_bad_chain,
        route_to_review(),
        "better",
        "human_review",
        {"bad": Decision(action="edit", text="better")},
    ),
    "rejected": Way(make_bad_chain, route_to_review(), ABSTENTION, "abstain", {"bad": REJECT}),
    "rejected, then another": Way(
        make_bad_chain,
        route_to_review(otherwise=Fallback(lambda question: "good")),
        "good",
        "fallback",
        {"bad": REJECT},
    ),
    "bands": Way(
        lambda: make_chain("fair"),
        lambda queue: RoutingPolicy(
            bands=(
                Band(0.8, Accept()),
                Band(0.3, Fallback(lambda question: "good", name="other")),
                Band(0, Abstain("never")),
            )
        ),
        "good",
        "fallback",
    ),
    "within all time limits": Way(
        make_bad_chain,
        route_below(
            make_fallback("good", retries=1),
            timeouts=Timeouts(chain=60, evaluator=60, fallback=60, overall=60),
        ),
        "good",
        "fallback",
    ),
}
WAYS = ["invoke", "ainvoke", "batch", "abatch"]


def _select_both(outcome: Outcome) -> tuple[Any, Verdict | None]:
    return outcome.output, outcome.verdict


def run(path: Way, way: str, queue: ReviewQueue) -> tuple[Any, Verdict | None]:
    """Return the output, or the type of the error, and the verdict, by one of the four methods."""
    evaluator = ConstantEvaluator(confidence, threshold=0.8)
    # The verdict beside the very output, so that the chain runs once.
    guarded = GuardedRun(
        RunnableLambda(path.chain()), lambda: evaluator, path.policy(queue), "guard", _select_both
    )
    inputs = ["q", "r"] if "batch" in way else ["q"]
    configs: list[RunnableConfig] = [ensure_config() for _ in inputs]
    results = (
        asyncio.run(guarded.arun(inputs, configs))
        if way.startswith("a")
        else guarded.run(inputs, configs)
    )
    if isinstance(results[0], Exception):
        return type(results[0]), None
    output, verdict = results[0]
    return output, verdict


def drop_run_details(verdict: Verdict | None) -> Any:
    """Return a verdict without seconds and tickets, which differ from run to run."""
    if verdict is None:
        return None
    steps = [step.model_copy(update={"seconds": None}) for step in verdict.steps]
    return verdict.model_dump(exclude={"timings", "steps", "ticket"}) | {"steps": steps}


@pytest.mark.parametrize("name", PATHS)
def test_sync_is_async_is_batch(name: str, tmp_path: Path) -> None:
    """All four methods give the output, the route and the verdict that the path is expected to have."""
    path = PATHS[name]
    seen = []
    for way in WAYS:
        queue = ReviewQueue(f"sqlite:///{tmp_path}/{way}.db")
        for answer, decision in path.decisions.items():
            for question in ("q", "r"):
                item = ReviewItem(question=question, answer=answer)
                queue.decide(queue.submit(item).id, decision)
        output, verdict = run(path, way, queue)
        assert output == path.output
        assert (None if verdict is None else verdict.route) == path.route
        seen.append(drop_run_details(verdict))
    assert seen[1:] == seen[:1] * 3


@pytest.mark.parametrize(
    ("confidence", "shown"), [(1.0, "Ada."), (0.0, "I can't answer this question.")]
)
def test_events_show_the_decided_output_as_a_chunk_of_the_guard(
    confidence: float, shown: str
) -> None:
    """astream_events reports the decided output as the one chunk of the guard's run, then its end."""
    guard = AspireGuard(RunnableLambda(lambda _: "Ada."), evaluator=ConstantEvaluator(confidence))

    async def collect_events() -> list[Any]:
        return [event async for event in guard.astream_events("Who?", version="v2")]

    events = asyncio.run(collect_events())
    of_guard = [
        (event["event"], event["data"]) for event in events if event["name"] == "AspireGuard"
    ]
    assert of_guard == [
        ("on_chain_start", {"input": "Who?"}),
        ("on_chain_stream", {"chunk": shown}),
        ("on_chain_end", {"output": shown}),
    ]


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_stream_reports_its_end_or_its_error_once(way: str) -> None:
    """A tracer sees the end of a stream that is left midway, and the error of one that fails."""
    ends: list[Any] = []

    class Tracer(BaseCallbackHandler):
        def on_chain_end(self, outputs: Any, *, parent_run_id: Any = None, **kwargs: Any) -> None:
            if parent_run_id is None:
                ends.append(outputs)

        def on_chain_error(
            self, error: BaseException, *, parent_run_id: Any = None, **kwargs: Any
        ) -> None:
            if parent_run_id is None:
                ends.append(type(error))

    def stream_first(chain: Any) -> None:
        guard = AspireGuard(chain, evaluator=ConstantEvaluator(1.0))

        async def first() -> None:
            stream: Any = guard.astream("Who?", {"callbacks": [Tracer()]})
            async with aclosing(stream):
                await anext(stream)

        if way == "async":
            asyncio.run(first())
        else:
            stream: Any = guard.stream("Who?", {"callbacks": [Tracer()]})
            with closing(stream):
                next(stream)

    stream_first(RunnableLambda(lambda _: "Ada."))
    assert ends == ["Ada."]
    ends.clear()
    with pytest.raises(ChainError):
        stream_first(RunnableLambda(lambda _: 1 / 0))
    assert ends == [ChainError]
