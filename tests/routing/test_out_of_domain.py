"""Answers that are unlike those of the calibration: the policy decides about them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from aspire_guard import AspireGuard, Band, Exchange, RoutingPolicy, Score
from aspire_guard.routing import scoring
from aspire_guard.routing.routes import Abstain, Accept
from aspire_guard.testing import ScriptedChatModel


class Estranged:
    """An evaluator that is sure of an answer it knows nothing about."""

    threshold = 0.5
    guarantee = "a promise"

    def score(self, exchanges: Sequence[Exchange]) -> list[Score]:
        return [Score(selection_score=0.0, confidence=0.9, out_of_domain=True) for _ in exchanges]


CHAIN = ScriptedChatModel("Совсем другое.")


def test_it_is_withheld_however_confident_the_evaluator_is() -> None:
    """The verdict says why, and makes no promise."""
    verdict = AspireGuard(CHAIN, evaluator=Estranged()).judge("Who?")
    assert (verdict.released, verdict.out_of_domain, verdict.guarantee) == (False, True, None)
    assert verdict.reason == "the answer is unlike those that the confidence was calibrated on"


def test_a_policy_may_go_by_the_confidence() -> None:
    """The verdict still tells, and the promise does not cover the answer."""
    policy = RoutingPolicy(out_of_domain="judge")
    verdict = AspireGuard(CHAIN, evaluator=Estranged(), policy=policy).judge("Who?")
    assert (verdict.released, verdict.out_of_domain, verdict.guarantee) == (True, True, None)


def test_it_takes_the_routes_of_the_lowest_band() -> None:
    """Except for an acceptance, even in a policy whose lowest band accepts."""
    bands = (
        Band(at_least=0.8, route=Accept()),
        Band(at_least=0, route=Abstain("Nothing that I could judge.")),
    )
    guard = AspireGuard(CHAIN, evaluator=Estranged(), policy=RoutingPolicy(bands=bands))
    assert guard.invoke("Who?").text == "Nothing that I could judge."


def test_a_warning_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    """With what to do about it."""
    scoring.warn_of_unusual_answers.cache_clear()
    guard = AspireGuard(CHAIN, evaluator=Estranged())
    with caplog.at_level(logging.WARNING):
        guard.invoke("Who?")
        guard.invoke("Who?")
    warnings = [record.message for record in caplog.records if "unlike those" in record.message]
    assert len(warnings) == 1
    assert "aspire-guard fit" in warnings[0]
