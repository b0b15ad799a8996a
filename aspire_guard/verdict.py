"""What the guard decided about one answer, and the score it decided on."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


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


class Timings(BaseModel):
    """Seconds spent on one answer; None for what did not run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generate: float | None = None
    score: float | None = None


class Verdict(BaseModel):
    """The decision on one answer.

    Attributes:
        accepted: whether the chain's own answer was released.
        route: where the answer went.
        confidence: the calibrated probability of being right; None where scoring failed.
        threshold: the least confidence that is released.
        score: all that the evaluator said; None where scoring failed.
        reason: one sentence for a person.
        guarantee: what the threshold promises, in one sentence; None where it promises nothing.
        error: what went wrong while scoring, if anything did.
        timings: seconds spent.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    accepted: bool
    route: Literal["accept", "abstain"]
    confidence: float | None
    threshold: float
    score: Score | None
    reason: str
    guarantee: str | None = None
    error: str | None = None
    timings: Timings = Timings()
