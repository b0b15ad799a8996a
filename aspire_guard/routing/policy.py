"""The policy: from which confidence on an answer is released, and what is said instead."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from aspire_guard.evaluators.protocol import Evaluator
from aspire_guard.verdict import Score, Timings, Verdict


class RoutingPolicy(BaseModel):
    """How the guard treats scored answers.

    Attributes:
        threshold: the least confidence that is released, in [0, 1]; None takes the evaluator's.
        abstention: what is said in place of an answer that is not released.
        on_error: what happens when scoring fails: abstain, or raise an EvaluationError.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: float | None = Field(default=None, ge=0.0, le=1.0)
    abstention: str = "I can't answer this question."
    on_error: Literal["abstain", "raise"] = "abstain"

    def decide(self, score: Score, evaluator: Evaluator, timings: Timings) -> Verdict:
        """The verdict on a scored answer: accepted when its confidence reaches the threshold."""
        threshold = self._threshold(evaluator)
        accepted = score.confidence >= threshold
        comparison = "reaches" if accepted else "is below"
        return Verdict(
            accepted=accepted,
            route="accept" if accepted else "abstain",
            confidence=score.confidence,
            threshold=threshold,
            score=score,
            reason=f"confidence {score.confidence:.3f} {comparison} the threshold {threshold:.3f}",
            guarantee=self._guarantee(evaluator),
            timings=timings,
        )

    def decide_unscored(self, error: str, evaluator: Evaluator, timings: Timings) -> Verdict:
        """The verdict on an answer that could not be scored: it is not released."""
        return Verdict(
            accepted=False,
            route="abstain",
            confidence=None,
            threshold=self._threshold(evaluator),
            score=None,
            reason="scoring failed, so the answer is not released",
            guarantee=self._guarantee(evaluator),
            error=error,
            timings=timings,
        )

    def _threshold(self, evaluator: Evaluator) -> float:
        return evaluator.threshold if self.threshold is None else self.threshold

    def _guarantee(self, evaluator: Evaluator) -> str | None:
        # The promise was made for the evaluator's own threshold and holds for no other.
        return evaluator.guarantee if self._threshold(evaluator) == evaluator.threshold else None
