"""Many flows as one."""

from __future__ import annotations

import pytest

from aspire_guard.routing.batching import batch_flows
from aspire_guard.routing.effects import ChainRan, RunChain
from aspire_guard.routing.flow import Flow, answer_flow
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.routing.scoring import ScoringResult
from aspire_guard.testing import ConstantEvaluator
from aspire_guard.verdict import Score


def start() -> Flow:
    return answer_flow("Who?", ConstantEvaluator(1.0), RoutingPolicy())


def test_flows_ask_for_the_same_kind_of_work_in_one_round() -> None:
    """Two flows share a round of generation and a round of scoring, while a third fails."""
    sure = Score(selection_score=0.0, confidence=1.0)
    unsure = Score(selection_score=-9.0, confidence=0.1)
    batches = batch_flows([start(), start(), start()])
    batch = next(batches)
    assert (batch.flows, batch.requests) == ([0, 1, 2], [RunChain()] * 3)
    batch = batches.send([ChainRan("Ada"), ValueError("model is down"), ChainRan("Bob")])
    assert batch.flows == [0, 2]
    assert [effect.exchange.answer for effect in batch.requests] == ["Ada", "Bob"]
    with pytest.raises(StopIteration) as stop:
        batches.send([ScoringResult(unsure), ScoringResult(sure)])
    first, second, third = stop.value.value
    assert first.output == RoutingPolicy().abstention
    assert repr(second) == "ValueError('model is down')"
    assert third.output == "Bob"
