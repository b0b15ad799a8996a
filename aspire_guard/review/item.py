"""Answers that wait for a person, and the person's decisions."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

Action = Literal["approve", "edit", "reject", "respond"]
Status = Literal["open", "decided"]

_ACTIONS_WITH_TEXT = ("edit", "respond")


class ReviewItem(BaseModel):
    """An answer that a person should look at.

    Attributes:
        question: the question.
        context: the passage that the answer should rest on, or None if there is no passage.
        answer: the answer as text.
        confidence: the calibrated probability that it is right, in [0, 1], or None if scoring failed.
        reason: the reason for the review, in one sentence.
        group: the tenant, task or other group that the answer belongs to, or None without groups.
        metadata: anything else that the reviewer should see.
        key: the identity of the item if it is submitted again. By default a digest (hex) of question, context,
            answer and group.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: str
    context: str | None = None
    answer: str
    confidence: float | None = Field(default=None, ge=0, le=1)
    reason: str = ""
    group: str | None = None
    metadata: dict[str, JsonValue] = {}
    key: str = Field(default="", max_length=200)

    @model_validator(mode="after")
    def _fill_key(self) -> Self:
        if not self.key:
            contents = json.dumps([self.question, self.context, self.answer, self.group])
            # The model is frozen.
            object.__setattr__(self, "key", hashlib.sha256(contents.encode()).hexdigest())
        return self


class Decision(BaseModel):
    """A person's decision on an answer.

    Attributes:
        action: "approve" the answer, "edit" it, "reject" it, or "respond" in its place.
        text: the edited answer, or the response, or None for the other actions.
        reviewer: the person who decided, or None if unknown.
        comment: the reason for the decision, or None if the person gave no reason.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Action
    text: str | None = None
    reviewer: str | None = None
    comment: str | None = None

    @model_validator(mode="after")
    def _check_text(self) -> Self:
        needs_text = self.action in _ACTIONS_WITH_TEXT
        has_text = self.text is not None
        if needs_text != has_text:
            expected = "a text" if needs_text else "no text"
            found = "a text" if has_text else "no text"
            raise ValueError(
                f"expected {expected} with the action {self.action!r}, found {found}; "
                "edit and respond have a text, approve and reject have none"
            )
        return self


class Ticket(BaseModel):
    """An item in the queue.

    Attributes:
        id: the name of the ticket.
        item: the answer that was submitted.
        decision: the decision on it, or None while the ticket is open.
        created: the time of submission, in UTC.
        decided: the time of the decision, in UTC, or None while the ticket is open.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    item: ReviewItem
    decision: Decision | None = None
    created: datetime
    decided: datetime | None = None

    @property
    def status(self) -> Status:
        """The state of the ticket: open or decided."""
        return "open" if self.decision is None else "decided"
