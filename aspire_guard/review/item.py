"""Answers that wait for a person, and the decisions on them."""

from __future__ import annotations

import hashlib
import json
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from aspire_guard.verdict import ContextSource, Score, Step

Action = Literal["approve", "edit", "reject", "respond"]

_ACTIONS_WITH_TEXT = ("edit", "respond")


class ReviewCandidate(BaseModel):
    """An answer that the guard had to choose from.

    Attributes:
        route: the chain itself, or a fallback.
        name: the name of the fallback, or None for the chain.
        answer: the answer as text.
        score: the evaluator's score, or None if scoring failed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    route: Literal["chain", "fallback"]
    name: str | None = None
    answer: str
    score: Score | None = None


class ReviewSource(BaseModel):
    """A passage that was retrieved for the question.

    Attributes:
        text: the passage.
        name: the file, the address or the title of its document, or None if the document has no such metadata.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    name: str | None = None


class ReviewItem(BaseModel):
    """An answer that a person should look at.

    Attributes:
        question: the question.
        context: the passage that the answer should rest on, or None if there is no passage.
        answer: the answer as text.
        confidence: the calibrated probability that it is right, in [0, 1], or None if scoring failed. By default that
            of `score`.
        reason: the reason for the review, in one sentence.
        group: the tenant, task or other group that the answer belongs to, or None without groups.
        metadata: anything else that the reviewer should see.
        key: the identity of the item if it is submitted again. By default a digest (hex) of question, context,
            answer and group.
        threshold: the lowest confidence that would have been released, or None if it is unknown.
        score: the evaluator's score, with the confidence of each sentence, or None if scoring failed.
        candidates: all answers of the run that have a text, in the order in which they came.
        sources: the passages that were retrieved for the question.
        context_source: the place in which the context was found, or None if there is no context.
        steps: the steps that the guard tried before.
        trace_id: the id of the guard's run in LangChain's traces, or None outside a run.
        thread_id: the thread of the graph that waits for the decision, or None if no graph waits.
        is_released: True if the answer has left already, and is reviewed to measure the risk.
        inclusion_probability: the probability with which an answer like this is submitted, in (0, 1]. Answers that
            are held back always are, and an audit draws a share of the released ones.
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
    threshold: float | None = None
    score: Score | None = None
    candidates: tuple[ReviewCandidate, ...] = ()
    sources: tuple[ReviewSource, ...] = ()
    context_source: ContextSource | None = None
    steps: tuple[Step, ...] = ()
    trace_id: str | None = None
    thread_id: str | None = None
    is_released: bool = False
    inclusion_probability: float = Field(default=1.0, gt=0, le=1)

    @model_validator(mode="after")
    def _fill_in(self) -> Self:
        # The model is frozen.
        if self.confidence is None and self.score is not None:
            object.__setattr__(self, "confidence", self.score.confidence)
        if not self.key:
            contents = json.dumps([self.question, self.context, self.answer, self.group])
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
