"""The flow of one answer, driven by hand."""

from __future__ import annotations

import pytest
from langchain_core.messages import AIMessage

from aspire_guard.errors import EvaluationError, ExchangeError
from aspire_guard.exchange import Exchange
from aspire_guard.routing.effects import ChainRan, RunChain, ScoreExchange
from aspire_guard.routing.flow import Flow, Outcome, answer_flow
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.routing.scoring import ScoringResult
from aspire_guard.testing import ConstantEvaluator
from aspire_guard.verdict import Score, Timings

EVALUATOR = ConstantEvaluator(confidence=1.0)
SURE = Score(selection_score=0.0, confidence=1.0)
UNSURE = Score(selection_score=-9.0, confidence=0.1)


def flow(policy: RoutingPolicy | None = None) -> Flow:
    return answer_flow("Who?", EVALUATOR, policy or RoutingPolicy())


def end(running: Flow, result: object) -> Outcome:
    with pytest.raises(StopIteration) as stop:
        running.send(result)
    outcome: Outcome = stop.value.value
    return outcome


def test_generate_then_evaluate_then_release() -> None:
    """The flow asks for an answer, then for its score, then hands out the answer with its verdict."""
    running = flow()
    assert next(running) == RunChain()
    assert running.send(ChainRan("Ada", seconds=2.0)) == ScoreExchange(
        Exchange(question="Who?", answer="Ada")
    )
    outcome = end(running, ScoringResult(SURE, seconds=0.5))
    assert outcome.output == "Ada"
    assert outcome.verdict is not None
    assert (outcome.verdict.accepted, outcome.verdict.score) == (True, SURE)
    assert outcome.verdict.timings == Timings(generate=2.0, score=0.5)


def test_a_low_score_ends_in_abstention() -> None:
    """The outcome is the policy's abstention."""
    running = flow(RoutingPolicy(abstention="Pass."))
    next(running)
    running.send(ChainRan("Ada"))
    outcome = end(running, ScoringResult(UNSURE))
    assert outcome.output == "Pass."
    assert outcome.verdict is not None
    assert outcome.verdict.route == "abstain"


def test_a_failed_evaluation_abstains() -> None:
    """The verdict holds the error."""
    running = flow()
    next(running)
    running.send(ChainRan("Ada"))
    outcome = end(running, ScoringResult(error=EvaluationError("no memory")))
    assert outcome.verdict is not None
    assert (outcome.verdict.accepted, outcome.verdict.error) == (False, "no memory")


def test_a_failed_evaluation_raises_if_the_policy_says_so() -> None:
    """The evaluator's error leaves the flow."""
    running = flow(RoutingPolicy(on_error="raise"))
    next(running)
    running.send(ChainRan("Ada"))
    with pytest.raises(EvaluationError, match="no memory"):
        running.send(ScoringResult(error=EvaluationError("no memory")))


def test_a_message_that_calls_tools_is_not_scored() -> None:
    """The message is the flow's outcome, without a verdict."""
    message = AIMessage("", tool_calls=[{"name": "look_up", "args": {}, "id": "1"}])
    running = flow()
    next(running)
    assert end(running, ChainRan(message)) == Outcome(message, None)


def test_an_unreadable_output_is_an_error() -> None:
    """The guard never releases an output that it could not judge."""
    running = flow()
    next(running)
    with pytest.raises(ExchangeError, match="no answer found"):
        running.send(ChainRan(42))
