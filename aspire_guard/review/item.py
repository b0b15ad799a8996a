"""What a review is about: an answer that waits for a person, and what the person decided."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

Action = Literal["approve", "edit", "reject", "respond"]
Status = Literal["open", "decided"]

_WITH_TEXT = ("edit", "respond")


class ReviewItem(BaseModel):
    """An answer that a person should look at.

    Attributes:
        question: what was asked.
        context: the passage the answer should rest on; None where there is none.
        answer: the answer as text.
        confidence: the calibrated probability that it is right, in [0, 1]; None where scoring failed.
        reason: why it is here, in one sentence.
        group: the tenant, task or other group it belongs to; None where there are none.
        metadata: whatever else the reviewer should see.
        key: what makes it the same item when it is submitted again; by default a digest (hex) of question,
            context, answer and group.
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
            object.__setattr__(self, "key", hashlib.sha256(contents.encode()).hexdigest())
        return self


class Decision(BaseModel):
    """What a person decided.

    Attributes:
        action: approve the answer, edit it, reject it, or respond in its place.
        text: the edited answer, or the response; None for the others.
        reviewer: who decided; None where unknown.
        comment: why; None where nothing was said.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Action
    text: str | None = None
    reviewer: str | None = None
    comment: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.action in _WITH_TEXT) == (self.text is None):
            found = "none" if self.text is None else "one"
            wanted = "a text" if self.action in _WITH_TEXT else "no text"
            raise ValueError(
                f"expected {wanted} with the action {self.action!r}, found {found}; "
                "edit and respond have a text, approve and reject have none"
            )
        return self


class Ticket(BaseModel):
    """An item in the queue.

    Attributes:
        id: names it.
        item: what was submitted.
        decision: what was decided; None while it is open.
        created: when it was submitted, in UTC.
        decided: when it was decided, in UTC; None while it is open.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    item: ReviewItem
    decision: Decision | None = None
    created: datetime
    decided: datetime | None = None

    @property
    def status(self) -> Status:
        """Whether it is open or decided."""
        return "open" if self.decision is None else "decided"
