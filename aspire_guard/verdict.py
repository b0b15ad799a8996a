"""The guard's decision on an answer, and the score behind it."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

RouteName = Literal["accept", "abstain", "fallback", "human_review", "custom"]
StepName = Literal["chain", "fallback", "human_review", "custom"]
# The place in which the context of an answer was found:
#   "reader"     the key or the function that the caller gave as `context`
#   "input"      the chain's input, or the state of the graph around it
#   "output"     the chain's output
#   "tool"       the results of tools in this turn
#   "retriever"  the documents of retrievers inside the chain
#   "chain"      passages that other steps inside the chain handed on
#   "prompt"     the text of a prompt that was formatted outside the guard
ContextSource = Literal["reader", "input", "output", "tool", "retriever", "chain", "prompt"]


class SentenceScore(BaseModel):
    """An evaluator's judgement of a sentence of an answer.

    Attributes:
        start: its first character in the answer.
        end: the end of its last character in the answer.
        confidence: the calibrated probability that the sentence is right, in [0, 1].
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: int
    end: int
    confidence: float = Field(ge=0.0, le=1.0)


class Score(BaseModel):
    """An evaluator's judgement of an answer.

    Attributes:
        selection_score: g of the paper, in nats. It ranks answers (higher is better), and has no meaning on its own.
        confidence: the calibrated probability that the answer is right, in [0, 1].
        log_likelihood: log f_norm, the mean log-probability of the answer's tokens in nats, or None if it is unknown.
        p_correct: the learned self-evaluation P(z_c | x, ŷ) in [0, 1], or None if the evaluator has none.
        signals: the named signals that the selection score is made of, and `aspire`, the paper's g with one α. Empty if
            the selection score is g itself.
        sentences: the judgement of each sentence that says something, in order. Empty if the evaluator judges whole
            answers only.
        out_of_domain: True if the answer is unlike the answers that the confidence was calibrated on.
        declined: the probability in [0, 1] that the answer declines to answer, as "I don't know" does, or None if the
            evaluator can't tell.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    selection_score: float
    confidence: float = Field(ge=0.0, le=1.0)
    log_likelihood: float | None = None
    p_correct: float | None = None
    signals: dict[str, float] = {}
    sentences: tuple[SentenceScore, ...] = ()
    out_of_domain: bool = False
    declined: float | None = Field(default=None, ge=0.0, le=1.0)

    @property
    def is_refusal(self) -> bool:
        """True if the answer more likely declines to answer than not."""
        return self.declined is not None and self.declined >= 0.5


def is_comparable(score: Score) -> bool:
    """Tell whether a score can be compared. An unvalidated score may hold NaN, or a value that is not a number."""
    try:
        is_share_or_unknown = score.declined is None or 0.0 <= score.declined <= 1.0
        is_ranked = not math.isnan(score.selection_score) and 0.0 <= score.confidence <= 1.0
        return is_ranked and is_share_or_unknown
    except TypeError:
        return False


class Timings(BaseModel):
    """The seconds spent on the chain's own answer.

    Attributes:
        generate: the seconds spent on generating it, or None if the chain did not run.
        score: the seconds spent on scoring it, or None if the evaluator did not run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    generate: float | None = None
    score: float | None = None


class Step(BaseModel):
    """One step that the guard tried for an answer.

    Attributes:
        route: the chain itself, or the route of the policy that was tried.
        name: the name of the fallback, or None for all other steps.
        confidence: the confidence of the answer that the chain or the fallback gave, or None if no answer was scored.
        error: the error in a sentence that quotes no answer, or None if there was no error.
        seconds: the seconds spent on the step, or None if they are unknown.
        retries: the number of further tries.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    route: StepName
    name: str | None = None
    confidence: float | None = None
    error: str | None = None
    seconds: float | None = None
    retries: int = 0


class Verdict(BaseModel):
    """The guard's decision on one answer.

    Attributes:
        accepted: True if the chain's own answer was released.
        released: True if any answer was released: the chain's, a fallback's, or one that a person wrote.
        route: the route that the answer took.
        confidence: the calibrated probability of being right, or None if scoring failed. If there were several
            answers, it belongs to the released answer, or else to the best-scored answer.
        threshold: the lowest confidence that is released.
        score: the score of the answer that `confidence` belongs to, or None if scoring failed.
        reason: the reason in one sentence for a person.
        guarantee: the promise of the threshold in one sentence, or None if it makes no promise.
        error: the last error on the way, or None if there was no error.
        timings: the seconds spent on the chain's own answer.
        steps: all steps that were tried, in order.
        ticket: the id of the review ticket, or None if no review was submitted.
        out_of_domain: True if the answer that `confidence` belongs to is unlike the answers of the calibration.
        context: the place where the context of that answer was found, or None if it was judged without a context.
        declined: True if that answer declines to answer, as "I don't know" does. False if it does not, or if the
            evaluator can't tell.
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
    out_of_domain: bool = False
    context: ContextSource | None = None
    declined: bool = False
