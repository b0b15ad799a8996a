"""The async twins of the queue's methods, and tickets that a guard submits."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnablePassthrough

from aspire_guard import AspireGuard, HumanReview, RoutingPolicy
from aspire_guard.review import Decision, ReviewItem, ReviewQueue, ReviewSource, TicketFilter
from aspire_guard.review.store import TicketStore
from aspire_guard.testing import ConstantEvaluator

APPROVE = Decision(action="approve", reviewer="bea")
SYNC_ONLY = {"close", "events", "wait"}


def test_every_method_has_an_async_twin() -> None:
    """The twin takes the same arguments. `wait` has `await_`."""
    for name, method in inspect.getmembers(TicketStore, inspect.isfunction):
        if name.startswith("_") or name in SYNC_ONLY:
            continue
        twin = getattr(ReviewQueue, f"a{name}")
        assert inspect.iscoroutinefunction(twin)
        assert inspect.signature(twin).parameters == inspect.signature(method).parameters


async def test_the_life_of_a_ticket_off_the_event_loop(url: str) -> None:
    """Everything can be done without blocking the loop, and a decision wakes whoever awaits it."""
    queue = ReviewQueue(url)
    first, second, third = [
        await queue.asubmit(ReviewItem(question=f"{number}?", answer="Ada")) for number in range(3)
    ]
    claimed = await queue.aclaim("bea")
    assert claimed is not None
    assert claimed.id == first.id
    assert (await queue.arelease(first.id, "bea")).claim is None
    waiting = asyncio.create_task(queue.await_(first.id, timeout=30))
    await asyncio.sleep(0.1)
    await queue.adecide(first.id, APPROVE)
    async with asyncio.timeout(4):
        assert await waiting == APPROVE
    await queue.adecide(second.id, APPROVE)
    assert (await queue.aundo(second.id, "bea")).status == "open"
    assert (await queue.awithdraw(third.id)).status == "withdrawn"
    assert await queue.aexpire() == ()
    assert (await queue.alist(TicketFilter(status="open"))).total == 1
    assert (await queue.acount()).decided == 1
    assert (await queue.aget(first.id)).delivered is not None
    assert [opinion.decision for opinion in await queue.aopinions(first.id)] == [APPROVE]
    assert [entry.event for entry in await queue.ahistory(third.id)] == ["submitted", "withdrawn"]
    assert await queue.apurge(ticket_ids=[third.id]) == 1
    assert (await queue.averify()).is_whole


class Shelf(BaseRetriever):
    """A retriever that finds the same two passages."""

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return [
            Document("Ada keeps the key.", metadata={"source": "keys.md"}),
            Document("The office opens at nine."),
        ]


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_guard_submits_the_sources_and_the_trace(tmp_path: Path, way: str) -> None:
    """The reviewer finds the documents by their names, and the run by its id in the traces."""
    queue = ReviewQueue(f"sqlite:///{tmp_path}/reviews.db")
    chain = {"context": Shelf(), "question": RunnablePassthrough()} | RunnableLambda(
        lambda found: {"answer": "Bob", "context": found["context"]}
    )
    guard = AspireGuard(
        chain,
        evaluator=ConstantEvaluator(0.1),
        policy=RoutingPolicy(otherwise=HumanReview(queue, metadata=("user",))),
    )
    run_id = "00000000-0000-0000-0000-000000000007"
    config: Any = {"run_id": run_id, "metadata": {"user": "dan"}}
    if way == "sync":
        guard.invoke("Who?", config)
    else:
        asyncio.run(guard.ainvoke("Who?", config))
    (ticket,) = queue.list()
    assert ticket.item.sources == (
        ReviewSource(text="Ada keeps the key.", name="keys.md"),
        ReviewSource(text="The office opens at nine."),
    )
    assert (ticket.item.trace_id, ticket.item.metadata) == (run_id, {"user": "dan"})
    assert ticket.item.score is not None
    assert [one.answer for one in ticket.item.candidates] == ["Bob"]
