"""Graphs that go on once people have decided in a review queue: `resume_decided`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, StateSnapshot

from aspire_guard.review.item import Decision
from aspire_guard.review.queue import ReviewQueue
from aspire_guard.review.ticket import Ticket, TicketFilter
from aspire_guard.timeouts import run_in_thread

# The newest tickets of these kinds are looked at each time. A process may be killed after it has noted a decision as
# delivered, and before the graph has gone on.
_LOOK_AGAIN = (
    TicketFilter(status="decided", has_thread=True, is_delivered=True),
    TicketFilter(status="expired", has_thread=True),
    TicketFilter(status="withdrawn", has_thread=True),
)

Result = TypeVar("Result")

_Graph = CompiledStateGraph[Any, Any, Any, Any]


def resume_decided(graph: _Graph, queue: ReviewQueue) -> list[str]:
    """Resume each thread of a graph that waits for a ticket on which people have decided.

    A ticket that expired or was withdrawn counts as rejected. Tickets of other graphs are left alone.

    Args:
        graph: the graph, with its checkpointer, whose policy has an `InterruptReview(queue)`.
        queue: the queue.

    Returns:
        The ids of the tickets whose threads have gone on.
    """
    resumed: list[str] = []
    while True:
        n_before = len(resumed)
        for ticket in _list_closed(queue):
            config = _make_config(ticket)
            interrupt = _find_interrupt(graph.get_state(config), ticket)
            decision = None if interrupt is None else _get_decision(ticket, queue)
            if interrupt is not None and decision is not None:
                graph.invoke(_make_command(interrupt, decision), config)
                resumed.append(ticket.id)
        # A thread pauses for one answer after the other, and the next one may be decided too.
        if len(resumed) == n_before:
            return resumed


async def aresume_decided(graph: _Graph, queue: ReviewQueue) -> list[str]:
    """Resume asynchronously; see `resume_decided`."""
    resumed: list[str] = []
    while True:
        n_before = len(resumed)
        for ticket in await _run(_list_closed, queue):
            config = _make_config(ticket)
            interrupt = _find_interrupt(await graph.aget_state(config), ticket)
            decision = None if interrupt is None else await _run(_get_decision, ticket, queue)
            if interrupt is not None and decision is not None:
                await graph.ainvoke(_make_command(interrupt, decision), config)
                resumed.append(ticket.id)
        if len(resumed) == n_before:
            return resumed


async def _run(work: Callable[..., Result], *arguments: Any) -> Result:
    return await run_in_thread(partial(work, *arguments), None, "review queue")


def _list_closed(queue: ReviewQueue) -> list[Ticket]:
    """List the tickets of graphs that nobody waits for any more, as far as the graph may not know of it yet."""
    closed: list[Ticket] = []
    undelivered = TicketFilter(status="decided", has_thread=True, is_delivered=False)
    page = queue.list(undelivered)
    closed += page
    while page.next is not None:
        page = queue.list(undelivered, after=page.next)
        closed += page
    for where in _LOOK_AGAIN:
        closed += queue.list(where, order="newest")
    return closed


def _get_decision(ticket: Ticket, queue: ReviewQueue) -> Decision | None:
    """Return the decision, which can't be undone from now on, or None if it was undone."""
    if ticket.status == "decided":
        return queue.wait(ticket.id, timeout=0)
    return Decision(action="reject", comment=ticket.status)


def _find_interrupt(state: StateSnapshot, ticket: Ticket) -> str | None:
    """Return the id of the interrupt that waits for a ticket, or None if there is none."""
    for interrupt in state.interrupts:
        if isinstance(interrupt.value, dict) and interrupt.value.get("ticket") == ticket.id:
            return interrupt.id
    return None


def _make_config(ticket: Ticket) -> RunnableConfig:
    return {"configurable": {"thread_id": ticket.item.thread_id}}


def _make_command(interrupt: str, decision: Decision) -> Command[Any]:
    return Command(resume={interrupt: decision.model_dump(mode="json")})
