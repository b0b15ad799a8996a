"""Batches: one scoring call, configs and errors one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda

from aspire_guard.errors import EvaluationError
from aspire_guard.exchange import Exchange
from aspire_guard.guard import AspireGuard
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.testing import ConstantEvaluator
from aspire_guard.verdict import Score

ABSTENTION = "I can't answer this question."


class CountingEvaluator(ConstantEvaluator):
    """An evaluator that trusts the answer "A", and keeps the answers of each call."""

    def __init__(self) -> None:
        super().__init__(lambda exchange: float(exchange.answer == "A"))
        object.__setattr__(self, "calls", [])

    calls: list[list[str]]

    def score(self, exchanges: Sequence[Exchange]) -> list[Score]:
        self.calls.append([exchange.answer for exchange in exchanges])
        return super().score(exchanges)


def upper(question: str) -> str:
    if question == "broken":
        raise ConnectionError("model is down")
    return question.upper()


CHAIN = RunnableLambda(upper)


def batch_both_ways(
    guard: AspireGuard, inputs: list[Any], config: Any = None, **kwargs: Any
) -> list[list[Any]]:
    return [
        guard.batch(inputs, config, **kwargs),
        asyncio.run(guard.abatch(inputs, config, **kwargs)),
    ]


def test_a_batch_is_scored_in_one_call() -> None:
    """Outputs keep their order, each decided on its own."""
    evaluator = CountingEvaluator()
    for outputs in batch_both_ways(AspireGuard(CHAIN, evaluator=evaluator), ["a", "b", "a"]):
        assert outputs == ["A", ABSTENTION, "A"]
    assert evaluator.calls == [["A", "B", "A"]] * 2


def test_exceptions_are_returned_on_request() -> None:
    """The other answers are scored as if the broken one were not there."""
    evaluator = CountingEvaluator()
    guard = AspireGuard(CHAIN, evaluator=evaluator)
    for outputs in batch_both_ways(guard, ["a", "broken", "b"], return_exceptions=True):
        assert [outputs[0], repr(outputs[1]), outputs[2]] == [
            "A",
            "ConnectionError('model is down')",
            ABSTENTION,
        ]
    assert evaluator.calls == [["A", "B"]] * 2


def test_exceptions_are_raised_otherwise() -> None:
    """The first error leaves the batch."""
    guard = AspireGuard(CHAIN, evaluator=CountingEvaluator())
    with pytest.raises(ConnectionError, match="model is down"):
        guard.batch(["a", "broken"])
    with pytest.raises(ConnectionError, match="model is down"):
        asyncio.run(guard.abatch(["a", "broken"]))


def test_a_failing_evaluator_fails_each_item() -> None:
    """By default each answer becomes an abstention. With on_error="raise" each raises an error."""

    def broken(exchange: Exchange) -> float:
        raise MemoryError("no memory")

    evaluator = ConstantEvaluator(broken)
    assert AspireGuard(CHAIN, evaluator=evaluator).batch(["a", "b"]) == [ABSTENTION, ABSTENTION]
    guard = AspireGuard(CHAIN, evaluator=evaluator, policy=RoutingPolicy(on_error="raise"))
    errors = guard.batch(["a", "b"], return_exceptions=True)
    assert [type(error) for error in errors] == [EvaluationError, EvaluationError]


def test_each_input_has_its_own_config() -> None:
    """A list of configs is dealt out in order."""
    chain: RunnableLambda[Any, Any] = RunnableLambda(
        lambda question, config: config["metadata"]["tenant"]
    )
    guard = AspireGuard(chain, evaluator=ConstantEvaluator(1.0))
    configs: list[RunnableConfig] = [{"metadata": {"tenant": "x"}}, {"metadata": {"tenant": "y"}}]
    assert batch_both_ways(guard, ["a", "b"], configs) == [["x", "y"], ["x", "y"]]


def test_judge_batch_gives_one_verdict_each() -> None:
    """The results come in the order of the inputs, sync and async."""
    guard = AspireGuard(CHAIN, evaluator=CountingEvaluator())
    for verdicts in (guard.judge_batch(["a", "b"]), asyncio.run(guard.ajudge_batch(["a", "b"]))):
        assert [verdict.accepted for verdict in verdicts] == [True, False]


def test_messages_that_call_tools_pass_through_a_batch() -> None:
    """Only the final texts among the outputs are scored."""
    call = AIMessage("", tool_calls=[{"name": "look_up", "args": {}, "id": "1"}])
    chain: RunnableLambda[Any, Any] = RunnableLambda(
        lambda question: call if question == "tool" else "A"
    )
    evaluator = CountingEvaluator()
    assert AspireGuard(chain, evaluator=evaluator).batch(["tool", "a"]) == [call, "A"]
    assert evaluator.calls == [["A"]]
