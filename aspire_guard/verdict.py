"""What the guard decided about one answer, and the score it decided on."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

RouteName = Literal["accept", "abstain", "fallback", "human_review", "custom"]
StepName = Literal["chain", "fallback", "human_review", "custom"]


class Score(BaseModel):
    """What an evaluator says of one answer.

    Attributes:
        selection_score: g of the paper, in nats: ranks answers, higher is better; no unit a person can read.
        confidence: the calibrated probability that the answer is right, in [0, 1].
        log_likelihood: log f_norm, the mean log-probability of the answer's tokens in nats; None where unknown.
        p_correct: the learned self-evaluation P(z_c | x, ŷ) in [0, 1]; None where the evaluator has none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    selection_score: float
    confidence: float = Field(ge=0.0, le=1.0)
    log_likelihood: float | None = None
    p_correct: float | None = None


def is_number(score: Score) -> bool:
    """Whether a score can be compared: an unvalidated one may hold NaN, or no number at all."""
    try:
        return not math.isnan(score.selection_score) and 0.0 <= score.confidence <= 1.0
    except TypeError:
        return False


class Timings(BaseModel):
    """Seconds spent on the chain's own answer; None for what did not run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generate: float | None = None
    score: float | None = None


class Step(BaseModel):
    """One step on the way of an answer.

    Attributes:
        route: what was tried: the chain itself, or a route of the policy.
        name: which fallback it was; None for the others.
        confidence: of the answer that the chain or the fallback gave; None where there is none.
        error: what went wrong, in a sentence that quotes no answer; None where nothing did.
        seconds: spent on it; None where unknown.
        retries: how often it was tried again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    route: StepName
    name: str | None = None
    confidence: float | None = None
    error: str | None = None
    seconds: float | None = None
    retries: int = 0


class Verdict(BaseModel):
    """The decision on one answer.

    Attributes:
        accepted: whether the chain's own answer was released.
        released: whether any answer was released: the chain's, a fallback's, or one that a person wrote.
        route: where the answer went.
        confidence: the calibrated probability of being right; None where scoring failed. Of several answers: of the
            one that was released, or else of the best-scored one.
        threshold: the least confidence that is released.
        score: all that the evaluator said of that answer; None where scoring failed.
        reason: one sentence for a person.
        guarantee: what the threshold promises, in one sentence; None where it promises nothing.
        error: what went wrong last on the way, if anything did.
        timings: seconds spent on the chain's own answer.
        steps: all that was tried, in order.
        ticket: the review ticket; None where none was submitted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    accepted: bool
    released: bool
    route: RouteName
    confidence: float | None
    threshold: float
    score: Score | None
    reason: str
    guarantee: str | None = None
    error: str | None = None
    timings: Timings = Timings()
    steps: tuple[Step, ...] = ()
    ticket: str | None = None
