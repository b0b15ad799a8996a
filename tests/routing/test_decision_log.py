"""The verdict on a score alone."""

from __future__ import annotations

import pytest

from aspire_guard.errors import EvaluationError
from aspire_guard.routing.decision_log import decide_by_score
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.routing.scoring import ScoringResult
from aspire_guard.testing import ConstantEvaluator
from aspire_guard.verdict import Score, Timings, Verdict


def decide(policy: RoutingPolicy, evaluator: ConstantEvaluator, score: Score) -> Verdict:
    return decide_by_score(policy.resolve_bands(evaluator), ScoringResult(score, seconds=0.5))


@pytest.mark.parametrize(
    ("threshold", "confidence", "accepted"),
    [
        (None, 0.7, True),
        (None, 0.69, False),
        (0.2, 0.2, True),
        (0.0, 0.0, True),
    ],
)
def test_an_answer_is_accepted_from_the_threshold_on(
    threshold: float | None, confidence: float, accepted: bool
) -> None:
    """The threshold is the policy's, or else the evaluator's, and belongs to the accepted side."""
    evaluator = ConstantEvaluator(confidence, threshold=0.7)
    score = Score(selection_score=-1.0, confidence=confidence)
    assert decide(RoutingPolicy(threshold=threshold), evaluator, score).accepted is accepted


def test_a_verdict_holds_score_threshold_reason_and_guarantee() -> None:
    """A reader of the verdict needs no other source."""
    evaluator = ConstantEvaluator(
        0.25, threshold=0.5, guarantee="at most 10 % of released answers are wrong"
    )
    score = Score(selection_score=-1.0, confidence=0.25)
    assert decide(RoutingPolicy(), evaluator, score) == Verdict(
        accepted=False,
        released=False,
        route="abstain",
        confidence=0.25,
        threshold=0.5,
        score=score,
        reason="confidence 0.250 is below the threshold 0.500",
        guarantee="at most 10 % of released answers are wrong",
        timings=Timings(score=0.5),
    )


def test_an_unscored_answer_is_not_released() -> None:
    """Even a threshold of zero does not accept it, because there is no confidence to compare."""
    verdict = decide_by_score(
        RoutingPolicy(threshold=0.0).resolve_bands(ConstantEvaluator(1.0)),
        ScoringResult(error=EvaluationError("no memory")),
    )
    assert (verdict.accepted, verdict.route, verdict.confidence, verdict.score) == (
        False,
        "abstain",
        None,
        None,
    )
    assert verdict.error == "no memory"


def test_a_guarantee_holds_for_its_own_threshold_only() -> None:
    """A policy with another threshold promises nothing."""
    evaluator = ConstantEvaluator(1.0, threshold=0.5, guarantee="promised")
    score = Score(selection_score=0.0, confidence=1.0)
    assert decide(RoutingPolicy(threshold=0.5), evaluator, score).guarantee == "promised"
    assert decide(RoutingPolicy(threshold=0.4), evaluator, score).guarantee is None
