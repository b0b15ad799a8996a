"""Human review inside a graph: the graph pauses until a person has decided, and continues with the decision.

The answer and its verdict are put into the graph's state first, and the graph pauses in a later node. On resume,
nothing is generated or scored again, so the person decides on the very answer that they saw.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import merge_configs
from langgraph.types import interrupt
from pydantic import BaseModel, ConfigDict

from aspire_guard.errors import ReviewQueueError
from aspire_guard.execution.guarded_run import VERDICT_EVENT
from aspire_guard.langgraph_compat import can_pause, is_interrupt
from aspire_guard.review.item import Decision, ReviewItem
from aspire_guard.review.ticket import Ticket
from aspire_guard.routing.abstain import attach_verdict
from aspire_guard.routing.decision_log import apply_review
from aspire_guard.routing.routes import ReviewDesk
from aspire_guard.verdict import Verdict

# The collector of the step of a graph that runs now, or None outside of a graph that can be paused.
_current_collector: ContextVar[ReviewCollector | None] = ContextVar(
    "aspire_guard_review_collector", default=None
)


class InterruptReview:
    """The queue of a HumanReview that pauses the graph: `HumanReview(InterruptReview())`.

    It works with `AspireGuardMiddleware`, and with `answer_node` and `review_node`, in graphs with a checkpointer.
    Routes after the review are taken before the pause. Their output is used if the person rejects the answer.

    Args:
        queue: takes the answers too, so that people decide in the queue and `resume_decided` resumes the graph. It is
            the only place for them if there is no graph to pause, or if the graph has no checkpointer.
    """

    def __init__(self, queue: ReviewDesk | None = None) -> None:
        self.queue = queue

    def submit(self, item: ReviewItem) -> Ticket:
        """Keep the answer for the node that pauses the graph, and submit it to the queue.

        If people have decided on this answer in this thread before, the graph need not pause.

        Raises:
            ReviewQueueError: there is neither a graph to pause nor a queue.
        """
        collector = _current_collector.get()
        if collector is None:
            return self._require_queue().submit(item)
        if self.queue is None:
            ticket = Ticket(id=str(uuid4()), item=item, created=datetime.now(UTC))
        else:
            ticket = self.queue.submit(collector.address(item))
        if ticket.decision is None:
            collector.tickets.append(ticket)
        return ticket

    def wait(self, ticket_id: str, timeout: float) -> Decision | None:
        """Wait for the queue's decision. In a graph, return None at once, because a later node pauses instead."""
        if _current_collector.get() is not None:
            return None
        return self._require_queue().wait(ticket_id, timeout)

    async def await_(self, ticket_id: str, timeout: float) -> Decision | None:
        """Wait asynchronously; see `wait`."""
        if _current_collector.get() is not None:
            return None
        return await self._require_queue().await_(ticket_id, timeout)

    def _require_queue(self) -> ReviewDesk:
        if self.queue is None:
            raise ReviewQueueError(
                "expected a graph with a checkpointer to pause, found none; give the graph one and use "
                "AspireGuardMiddleware or answer_node, or give InterruptReview a queue for this case"
            )
        return self.queue


class PendingReview(BaseModel):
    """An answer in a graph's state that waits for a person.

    Attributes:
        item: the question and the answer that the person sees.
        verdict: the guard's verdict so far.
        message_id: the id of the message in the state that stands in for the answer.
        ticket: the id of the ticket in the queue, or None if no queue has the answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    item: ReviewItem
    verdict: Verdict
    message_id: str
    ticket: str | None = None

    @property
    def question(self) -> dict[str, Any]:
        """The value of the interrupt: the item, and the ticket if there is one."""
        value = self.item.model_dump(mode="json")
        return value if self.ticket is None else value | {"ticket": self.ticket}


class ReviewCollector(BaseCallbackHandler):
    """The answers that wait for a person in one step of a graph, and the verdict of the step's guard.

    The verdict arrives as an event, because a guard's output carries a verdict only if it is a message.

    Attributes:
        config: the config for the guard's run in this step.
        tickets: the answers that wait.
        verdict: the guard's verdict, or None until the guard has decided.
        step: the number of the graph's step, or None outside a graph.
        interrupt: an interrupt that has left a runnable of this step, or None.
    """

    # The handler runs at once and not in the event loop's executor, so that the verdict is here when the guard
    # returns.
    run_inline = True

    def __init__(self, config: RunnableConfig) -> None:
        self.config = merge_configs(config, {"callbacks": [self]})
        self.tickets: list[Ticket] = []
        self.verdict: Verdict | None = None
        self.step: int | None = find_graph_step(config)
        self.interrupt: BaseException | None = None

    def on_custom_event(self, name: str, data: Any, **_: Any) -> None:
        """Keep the verdict. If guards are nested, the outermost guard's verdict comes last and stays."""
        if name == VERDICT_EVENT:
            self.verdict = Verdict.model_validate(data)

    def on_chain_error(self, error: BaseException, **_: Any) -> None:
        """Keep an interrupt, which a fallback or a retry around the guard may take for a failure."""
        if is_interrupt(error):
            self.interrupt = error

    def address(self, item: ReviewItem) -> ReviewItem:
        """Return an item with the thread that waits for it. Another thread with the same answer waits for itself."""
        configurable = self.config.get("configurable", {})
        thread_id = str(configurable.get("thread_id"))
        place = [item.key, thread_id, configurable.get("checkpoint_ns", "").split(":")[0]]
        key = hashlib.sha256(json.dumps(place).encode()).hexdigest()
        return item.model_copy(update={"thread_id": thread_id, "key": key})

    def make_pending_reviews(self, message: AIMessage) -> dict[str, Any]:
        """Return the update for `aspire_review` in the state, as plain data, which is empty if no answer waits.

        Args:
            message: the message with an id that stands in for the answer in the state.
        """
        if not self.tickets or self.verdict is None:
            return {}
        assert message.id is not None
        ticket = self.tickets[-1]
        review = PendingReview(
            item=ticket.item,
            verdict=self.verdict,
            message_id=message.id,
            ticket=None if ticket.item.thread_id is None else ticket.id,
        )
        return {message.id: review.model_dump(mode="json")}


@contextmanager
def collect_reviews(config: RunnableConfig) -> Iterator[ReviewCollector]:
    """Make `InterruptReview` collect answers within the block, if the graph of `config` can be paused.

    Raises:
        GraphInterrupt: a runnable in the block was interrupted, and another runnable around it took
            the interrupt for a failure.
    """
    collector = ReviewCollector(config)
    token = _current_collector.set(collector if can_pause(config) else None)
    try:
        yield collector
    finally:
        _current_collector.reset(token)
    if collector.interrupt is not None:
        raise collector.interrupt


def merge_reviews(pending: dict[str, Any] | None, update: dict[str, Any] | None) -> dict[str, Any]:
    """Merge an update into the answers that wait, by the ids of their messages.

    It is the reducer of `aspire_review` in a graph's state, so that several nodes may answer in one
    step, and so that an answer waits until someone has decided on it. A decided answer is None in
    the update.
    """
    merged = {**(pending or {}), **(update or {})}
    return {message_id: review for message_id, review in merged.items() if review is not None}


def find_graph_step(config: RunnableConfig) -> int | None:
    """Return the number of the graph's step that a config belongs to, or None outside a graph."""
    step = config.get("metadata", {}).get("langgraph_step")
    return step if isinstance(step, int) else None


def wait_for_decision(state: Any) -> dict[str, Any] | None:
    """Pause the graph while answers wait, and return the update of the state that the decisions make.

    The graph pauses for one answer after the other, the oldest first. The decisions take effect
    together.

    Returns:
        The update, or None if no answer waits.

    Raises:
        GraphInterrupt: nobody has decided yet. Its value is the item, and it expects a `Decision` on resume.
    """
    pending: dict[str, Any] = state.get("aspire_review") or {}
    if not pending:
        return None
    stand_ins = {message.id: message for message in state["messages"]}
    released: list[AIMessage] = []
    for message_id, plain_review in pending.items():
        review = PendingReview.model_validate(plain_review)
        decision: Decision = interrupt(review.question, response_schema=Decision)
        # A message that was removed since then, such as by a summary, comes back with the decision.
        stand_in = stand_ins.get(message_id)
        if stand_in is not None or decision.action != "reject":
            stand_in = stand_in or AIMessage("", id=message_id)
            released.append(_apply_decision(review, decision, stand_in))
    return {"messages": released, "aspire_review": dict.fromkeys(pending)}


def _apply_decision(review: PendingReview, decision: Decision, stand_in: AIMessage) -> AIMessage:
    """Return the message that replaces the stand-in under its id, with the new verdict.

    If the answer is rejected, the text of the stand-in stays.
    """
    message = stand_in
    if decision.action != "reject":
        text = review.item.answer if decision.text is None else decision.text
        message = AIMessage(
            text, id=stand_in.id, name=stand_in.name, usage_metadata=stand_in.usage_metadata
        )
    released: AIMessage = attach_verdict(message, apply_review(review.verdict, decision))
    return released
