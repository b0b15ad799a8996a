"""The way of one answer, driven by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from langchain_core.messages import AIMessage

from aspire_guard.errors import EvaluationError, ExchangeError
from aspire_guard.exchange import Exchange
from aspire_guard.routing.batching import batch_flows
from aspire_guard.routing.effects import ChainRan, RunChain, ScoreExchange
from aspire_guard.routing.flow import Flow, Outcome, answer_flow
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.routing.scoring import ScoringResult, score_exchanges
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
    """What comes out is the policy's abstention."""
    running = flow(RoutingPolicy(abstention="Pass."))
    next(running)
    running.send(ChainRan("Ada"))
    outcome = end(running, ScoringResult(UNSURE))
    assert outcome.output == "Pass."
    assert outcome.verdict is not None
    assert outcome.verdict.route == "abstain"


def test_a_failed_evaluation_abstains() -> None:
    """The error stands in the verdict."""
    running = flow()
    next(running)
    running.send(ChainRan("Ada"))
    outcome = end(running, ScoringResult(error=EvaluationError("no memory")))
    assert outcome.verdict is not None
    assert (outcome.verdict.accepted, outcome.verdict.error) == (False, "no memory")


def test_a_failed_evaluation_raises_where_the_policy_says_so() -> None:
    """The evaluator's error leaves the flow."""
    running = flow(RoutingPolicy(on_error="raise"))
    next(running)
    running.send(ChainRan("Ada"))
    with pytest.raises(EvaluationError, match="no memory"):
        running.send(ScoringResult(error=EvaluationError("no memory")))


def test_a_message_that_calls_tools_is_not_scored() -> None:
    """It is the flow's outcome as it is, without a verdict."""
    message = AIMessage("", tool_calls=[{"name": "look_up", "args": {}, "id": "1"}])
    running = flow()
    next(running)
    assert end(running, ChainRan(message)) == Outcome(message, None)


def test_an_unreadable_output_is_an_error() -> None:
    """Nothing that was not judged is released."""
    running = flow()
    next(running)
    with pytest.raises(ExchangeError, match="no answer found"):
        running.send(ChainRan(42))


def test_together_asks_for_like_work_at_once() -> None:
    """Two flows make one round of generation and one of evaluation; a third fails on its way."""
    work = batch_flows([flow(), flow(), flow()])
    asked = next(work)
    assert (asked.flows, asked.requests) == ([0, 1, 2], [RunChain()] * 3)
    asked = work.send([ChainRan("Ada"), ValueError("model is down"), ChainRan("Bob")])
    assert asked.flows == [0, 2]
    assert [request.exchange.answer for request in asked.requests] == ["Ada", "Bob"]
    with pytest.raises(StopIteration) as stop:
        work.send([ScoringResult(UNSURE), ScoringResult(SURE)])
    first, second, third = stop.value.value
    assert first.output == RoutingPolicy().abstention
    assert repr(second) == "ValueError('model is down')"
    assert third.output == "Bob"


class Failing:
    """An evaluator that raises, or gives what it was told to."""

    threshold = 0.5
    guarantee = None

    def __init__(self, result: list[Score] | Exception) -> None:
        self.result = result

    def score(self, exchanges: Sequence[Exchange]) -> list[Score]:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


ADA = Exchange(question="Who?", answer="Ada, I think")


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (
            RuntimeError("no memory"),
            "expected a score; the evaluator raised RuntimeError: no memory",
        ),
        (RuntimeError("can't read 'ADA'"), "expected a score; the evaluator raised RuntimeError"),
        (EvaluationError("timed out after 3 s"), "timed out after 3 s"),
        (
            EvaluationError("can't read 'Ada'"),
            "expected a score; the evaluator raised EvaluationError",
        ),
        (
            EvaluationError("can't read 'Ada, I th...'"),
            "expected a score; the evaluator raised EvaluationError",
        ),
        ([], "expected one score an exchange, 1 in all; the evaluator gave 0; fix it"),
        (
            [Score.model_construct(selection_score=0.0, confidence=float("nan"))],
            "expected a confidence in [0, 1] and a selection score; found nan and 0.0; fix the evaluator",
        ),
        (
            [Score.model_construct(selection_score=float("nan"), confidence=0.5)],
            "expected a confidence in [0, 1] and a selection score; found 0.5 and nan; fix the evaluator",
        ),
    ],
)
def test_every_failure_of_an_evaluator_has_its_sentence(
    result: list[Score] | Exception, message: str
) -> None:
    """The sentence tells what happened, and drops the evaluator's own words where they may quote the answer."""
    (evaluated,) = score_exchanges(Failing(result), [ADA])
    assert evaluated.score is None
    assert str(evaluated.error) == message


def test_words_beyond_ascii_are_not_repeated() -> None:
    """An escaped or shortened quotation can't be recognised, so the evaluator's message is dropped."""
    (evaluated,) = score_exchanges(
        Failing(RuntimeError(ascii("北京"))), [Exchange(question="哪里", answer="北京市")]
    )
    assert str(evaluated.error) == "expected a score; the evaluator raised RuntimeError"


def test_one_nan_fails_its_own_exchange_only() -> None:
    """The rest of the batch keeps its scores."""
    results = score_exchanges(
        Failing([SURE, Score.model_construct(selection_score=0.0, confidence=float("nan"))]),
        [ADA, ADA],
    )
    assert [evaluated.score for evaluated in results] == [SURE, None]
