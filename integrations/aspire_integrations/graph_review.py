"""Human review inside a graph: the graph pauses until a person has decided, and goes on with what was decided.

The answer and its verdict are put into the graph's state first and the graph is paused in a later node, so that on
resume nothing is generated or scored again: the person decides on the very answer that they saw.
"""

from __future__ import annotations

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
from aspire_guard.langgraph_compat import can_pause
from aspire_guard.review.item import Decision, ReviewItem, Ticket
from aspire_guard.routing.abstain import attach_verdict
from aspire_guard.routing.decision_log import apply_review
from aspire_guard.routing.routes import ReviewDesk
from aspire_guard.verdict import Verdict

# What the graph's step that goes on holds for a person; None where no such step is there to pause.
_held: ContextVar[Held | None] = ContextVar("aspire_guard_held", default=None)


class InterruptReview:
    """The queue of a HumanReview that pauses the graph: `HumanReview(InterruptReview())`.

    It works with `AspireGuardMiddleware`, and with `answer_node` and `review_node`, in graphs with a checkpointer.
    Routes after the review are taken at once; what they give stands when the person rejects the answer.

    Args:
        queue: takes the answers in its stead where there is no graph to pause, or none with a checkpointer.
    """

    def __init__(self, queue: ReviewDesk | None = None) -> None:
        self.queue = queue

    def submit(self, item: ReviewItem) -> Ticket:
        """Note the answer for the node that pauses; elsewhere hand it to the queue.

        Raises:
            ReviewQueueError: there is neither a graph to pause nor a queue.
        """
        held = _held.get()
        if held is None:
            return self._queue.submit(item)
        held.tickets.append(Ticket(id=str(uuid4()), item=item, created=datetime.now(UTC)))
        return held.tickets[-1]

    def wait(self, ticket_id: str, timeout: float) -> Decision | None:
        """None in a graph, which does its waiting by pausing; elsewhere as the queue."""
        return None if _held.get() is not None else self._queue.wait(ticket_id, timeout)

    async def await_(self, ticket_id: str, timeout: float) -> Decision | None:
        """As `wait`."""
        return None if _held.get() is not None else await self._queue.await_(ticket_id, timeout)

    @property
    def _queue(self) -> ReviewDesk:
        if self.queue is None:
            raise ReviewQueueError(
                "expected a graph with a checkpointer to pause, found none; give the graph one and use "
                "AspireGuardMiddleware or answer_node, or give InterruptReview a queue for this case"
            )
        return self.queue


class PendingReview(BaseModel):
    """An answer in a graph's state that waits for a person.

    Attributes:
        item: what the person sees.
        verdict: what the guard decided so far.
        message_id: of the message in the state that stands in for it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    item: ReviewItem
    verdict: Verdict
    message_id: str


class Held(BaseCallbackHandler):
    """What is held for a person in one step of a graph, and the verdict of the guard that held it.

    The verdict is heard as an event: of the outputs of a guard only a message carries one.

    Attributes:
        config: for the guard's run in this step.
        tickets: the answers that wait.
        verdict: of the guard; None until it has decided.
    """

    # At once, and not in the event loop's executor: the verdict has to be here when the guard returns.
    run_inline = True

    def __init__(self, config: RunnableConfig) -> None:
        self.config = merge_configs(config, {"callbacks": [self]})
        self.tickets: list[Ticket] = []
        self.verdict: Verdict | None = None

    def on_custom_event(self, name: str, data: Any, **_: Any) -> None:
        """Hear a verdict; of guards inside one another the outermost speaks last."""
        if name == VERDICT_EVENT:
            self.verdict = Verdict.model_validate(data)

    def pending(self, message: AIMessage) -> dict[str, Any] | None:
        """What is to be put into the state under `aspire_review`: plain data, or None where nothing waits.

        Args:
            message: stands in for the answer in the state; has an id.
        """
        if not self.tickets or self.verdict is None:
            return None
        assert message.id is not None
        review = PendingReview(
            item=self.tickets[-1].item, verdict=self.verdict, message_id=message.id
        )
        return review.model_dump(mode="json")


@contextmanager
def holding(config: RunnableConfig) -> Iterator[Held]:
    """While it is open, `InterruptReview` notes answers in what it gives, if the graph of `config` can be paused."""
    held = Held(config)
    token = _held.set(held if can_pause(config) else None)
    try:
        yield held
    finally:
        _held.reset(token)


def reviewed(state: Any) -> dict[str, Any] | None:
    """The update of a state in which an answer waits: pauses the graph, and then puts what was decided in its place.

    Raises:
        GraphInterrupt: nobody has decided yet; its value is the item, and a `Decision` is expected on resume.
    """
    found = state.get("aspire_review")
    if found is None:
        return None
    review = PendingReview.model_validate(found)
    decision: Decision = interrupt(review.item.model_dump(mode="json"), response_schema=Decision)
    said = next(message for message in state["messages"] if message.id == review.message_id)
    return {"messages": [_decided(review, decision, said)], "aspire_review": None}


def _decided(review: PendingReview, decision: Decision, said: AIMessage) -> AIMessage:
    """The message under the id that it had; a rejected answer leaves what is said already, with the new verdict."""
    if decision.action != "reject":
        text = review.item.answer if decision.text is None else decision.text
        said = AIMessage(text, id=said.id, name=said.name, usage_metadata=said.usage_metadata)
    message: AIMessage = attach_verdict(said, apply_review(review.verdict, decision))
    return message
